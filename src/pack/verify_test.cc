#include "pack/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/container.h"
#include "pack/pack.h"
#include "pack/test_checkpoint.h"

namespace penstock {
namespace {

using testing::HasSubstr;

void pack_tiny(SimStorage& disk) {
  test::store_all(disk, "/source", test::tiny_checkpoint());
  PackOptions options;
  options.source = "/source";
  options.target = "/m";
  options.experts = DType::kQ3;
  pack_model(disk, options, {}, {}).value();
}

// True when verifying says that something is wrong, in either of its two ways.
bool is_found(SimStorage& disk) {
  const Result<VerifyReport> report = verify_model(disk, "/m", {}, {});
  return !report.has_value() || report->num_faults > 0;
}

TEST(Verify, a_good_model_has_no_faults_and_every_byte_was_read) {
  SimStorage disk;
  pack_tiny(disk);
  uint64_t last = 0, total = 0;
  const auto progress = [&](uint64_t done, uint64_t all) {
    last = done;
    total = all;
  };
  const VerifyReport report = *verify_model(disk, "/m", progress, {});
  EXPECT_EQ(report.num_faults, 0u);
  EXPECT_EQ(last, total);
  uint64_t bytes = 0;
  const std::vector<std::string> names = *disk.list("/m");
  for (const std::string& name : names) bytes += disk.stat("/m/" + name)->bytes;
  EXPECT_EQ(report.bytes, bytes - disk.stat("/m/penstock.json")->bytes);
}

TEST(Verify, one_flipped_bit_anywhere_is_found) {
  SimStorage disk;
  pack_tiny(disk);
  std::mt19937_64 random(3);
  const std::vector<std::string> names = *disk.list("/m");
  ASSERT_EQ(names.size(), 8u);
  for (const std::string& name : names) {
    const std::string path = "/m/" + name;
    const uint64_t bits = disk.stat(path)->bytes * 8;
    for (int i = 0; i < 60; ++i) {
      const uint64_t bit = i == 0 ? 0 : i == 1 ? bits - 1 : random() % bits;
      disk.flip_stored_bit(path, bit);
      EXPECT_TRUE(is_found(disk)) << name << " bit " << bit;
      disk.flip_stored_bit(path, bit);
    }
  }
  EXPECT_FALSE(is_found(disk));
}

TEST(Verify, names_layer_expert_and_part) {
  SimStorage disk;
  pack_tiny(disk);
  const ExpertRecord record = Container::open(disk, "/m")->experts().record(0);
  disk.flip_stored_bit("/m/experts.bin", (4 * record.bytes + record.down_offset + 1) * 8);
  disk.flip_stored_bit("/m/experts.bin", (record.bytes - 1) * 8);
  const VerifyReport report = *verify_model(disk, "/m", {}, {});
  ASSERT_EQ(report.num_faults, 2u);
  EXPECT_THAT(report.faults[0], HasSubstr("layer 0 expert 0, down"));
  EXPECT_THAT(report.faults[0], HasSubstr("padding"));
  EXPECT_THAT(report.faults[1], HasSubstr("layer 1 expert 1, down"));
}

TEST(Verify, two_records_that_changed_places_are_found) {
  SimStorage disk;
  pack_tiny(disk);
  const uint64_t record = Container::open(disk, "/m")->experts().record(0).bytes;
  std::string experts = *read_text(disk, "/m/experts.bin", 1 << 30);
  std::swap_ranges(experts.begin(), experts.begin() + static_cast<int64_t>(record),
                   experts.begin() + static_cast<int64_t>(record));
  test::store(disk, "/m/experts.bin", experts);
  EXPECT_EQ(verify_model(disk, "/m", {}, {})->num_faults, 4u) << "both parts of both";
}

TEST(Verify, a_disk_that_cannot_read_is_a_finding) {
  SimStorage disk;
  pack_tiny(disk);
  disk.inject({.call = SimCall::kRead, .path_part = "resident.bin"});
  const VerifyReport report = *verify_model(disk, "/m", {}, {});
  EXPECT_EQ(report.num_faults, 1u);
  EXPECT_THAT(report.faults[0], HasSubstr("/m/resident.bin"));
}

TEST(Verify, can_be_stopped) {
  SimStorage disk;
  pack_tiny(disk);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(verify_model(disk, "/m", {}, stop.get_token()).error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace penstock
