#include "store/expert_usage.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cmath>

#include "support/sim_storage.h"

namespace penstock {
namespace {

constexpr UsageOwner kOwner = {.model = {1, 2}, .num_layers = 2, .num_experts = 3};
const ExpertUsage kUsage = {2, 3, {0.0f, 2.5f, 1.0f, 7.0f, 0.0f, 2.5f}};

class UsageFile : public testing::Test {
 protected:
  std::vector<std::byte> bytes() {
    std::vector<std::byte> all(disk_.stat(kPath)->bytes);
    read_exactly(**disk_.open(kPath, OpenMode::kRead), 0, all).value();
    return all;
  }
  void write(std::span<const std::byte> bytes) {
    (*disk_.open(kPath, OpenMode::kCreate))->write(0, bytes).value();
  }
  Error refused(const UsageOwner& owner = kOwner) {
    const auto loaded = load_usage(disk_, kPath, owner);
    EXPECT_FALSE(loaded.has_value());
    return loaded ? Error{ErrorCode::kIo, ""} : loaded.error();
  }

  static constexpr char kPath[] = "/state/penstock/usage/0123";
  SimStorage disk_{3};
};

TEST(MostUsed, comes_first_equals_in_order_and_unused_ones_not_at_all) {
  const std::vector<ExpertId> expected = {{1, 0}, {0, 1}, {1, 2}, {0, 2}};
  EXPECT_EQ(most_used(kUsage), expected);
}

TEST_F(UsageFile, gives_back_what_was_saved) {
  EXPECT_EQ(refused().code, ErrorCode::kNotFound);
  ASSERT_TRUE(save_usage(disk_, kPath, kOwner, kUsage).has_value());
  EXPECT_EQ(load_usage(disk_, kPath, kOwner)->counts, kUsage.counts);
  EXPECT_FALSE(disk_.stat(std::string(kPath) + ".partial").has_value());
}

TEST_F(UsageFile, any_flipped_bit_and_any_other_length_is_refused) {
  ASSERT_TRUE(save_usage(disk_, kPath, kOwner, kUsage).has_value());
  const std::vector<std::byte> whole = bytes();
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::vector<std::byte> flipped = whole;
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    write(flipped);
    EXPECT_NE(refused().message.find(kPath), std::string::npos);
  }
  for (size_t length = 0; length < whole.size(); ++length) {
    write(std::span(whole).first(length));
    EXPECT_EQ(refused().code, ErrorCode::kCorrupt) << length;
  }
  std::vector<std::byte> longer = whole;
  longer.push_back(std::byte{0});
  write(longer);
  EXPECT_EQ(refused().code, ErrorCode::kCorrupt);
}

TEST_F(UsageFile, of_another_model_shape_or_version_is_refused_with_the_reason) {
  ASSERT_TRUE(save_usage(disk_, kPath, kOwner, kUsage).has_value());
  UsageOwner other = kOwner;
  other.model.high = 3;
  EXPECT_EQ(refused(other).code, ErrorCode::kUnsupported);
  EXPECT_NE(refused(other).message.find("another model"), std::string::npos);
  other = kOwner;
  std::swap(other.num_layers, other.num_experts);
  EXPECT_NE(refused(other).message.find("shape"), std::string::npos);
  std::vector<std::byte> newer = bytes();
  newer[7] = std::byte{'2'};
  write(newer);
  EXPECT_EQ(refused().code, ErrorCode::kUnsupported);
  EXPECT_NE(refused().message.find("version"), std::string::npos);
}

TEST_F(UsageFile, with_impossible_counts_is_refused_though_its_checksum_agrees) {
  for (const float count : {-1.0f, INFINITY, NAN}) {
    ExpertUsage usage = kUsage;
    usage.counts[4] = count;
    ASSERT_TRUE(save_usage(disk_, kPath, kOwner, usage).has_value());
    EXPECT_EQ(refused().code, ErrorCode::kCorrupt);
  }
}

TEST_F(UsageFile, stays_as_it_was_when_saving_fails) {
  ASSERT_TRUE(save_usage(disk_, kPath, kOwner, kUsage).has_value());
  const ExpertUsage other = {2, 3, std::vector<float>(6, 1.0f)};
  for (const SimCall call : {SimCall::kWrite, SimCall::kSync, SimCall::kRename}) {
    disk_.inject({.call = call, .error = EIO});
    EXPECT_FALSE(save_usage(disk_, kPath, kOwner, other).has_value());
    disk_.clear_faults();
    EXPECT_EQ(load_usage(disk_, kPath, kOwner)->counts, kUsage.counts);
  }
}

}  // namespace
}  // namespace penstock
