#include "engine/budget.h"

#include <gtest/gtest.h>

#include "engine/test_sizes.h"

namespace penstock {
namespace {

using test::kGiB;
using test::kMiB;

MemoryAvailability left(uint64_t bytes) {
  return {.available_bytes = bytes, .limit_bytes = 2 * bytes, .binding = "memory.max of /box"};
}

MemoryPlan plan_of(uint64_t bytes) {
  MemoryPlan plan;
  plan.total_bytes = bytes;
  return plan;
}

TEST(DefaultBudget, the_reserve_follows_the_size_of_what_is_there) {
  constexpr uint64_t kHuge = uint64_t{1} << 50;
  const auto bytes = [](uint64_t available) {
    return default_budget(left(available), {0, kHuge}).bytes;
  };
  EXPECT_EQ(bytes(0), 0u);
  EXPECT_EQ(bytes(64 * kMiB), 56 * kMiB);
  EXPECT_EQ(bytes(512 * kMiB), 448 * kMiB);
  EXPECT_EQ(bytes(8 * kGiB), 7 * kGiB);
  EXPECT_EQ(bytes(20 * kGiB), 19 * kGiB);
  EXPECT_EQ(bytes(200 * kGiB), 190 * kGiB);
  for (uint64_t available = kMiB; available < 100 * kGiB; available += available / 3) {
    EXPECT_GE(bytes(available + available / 3), bytes(available)) << "more memory, more budget";
  }
}

TEST(DefaultBudget, takes_no_more_than_the_model_can_use_and_says_what_binds) {
  EXPECT_EQ(default_budget(left(8 * kGiB), {kGiB, 2 * kGiB}).bytes, 2 * kGiB);
  EXPECT_NE(default_budget(left(8 * kGiB), {kGiB, 9 * kGiB}).reason.find("memory.max of /box"),
            std::string::npos);
}

TEST(CheckPlan, beyond_the_ceiling_is_refused_with_both_numbers) {
  const MemoryCeiling ceiling{.bytes = 60 * kMiB, .binding = "memory.max of /box"};
  const auto refused = check_plan(plan_of(100 * kMiB), left(50 * kMiB), ceiling);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  for (const char* part : {"100", "60", "memory.max of /box", "--memory"}) {
    EXPECT_NE(refused.error().message.find(part), std::string::npos) << part;
  }
}

TEST(CheckPlan, beyond_what_is_left_now_is_told_with_both_numbers) {
  const MemoryCeiling ceiling{.bytes = 200 * kMiB, .binding = "memory.max of /box"};
  const auto told = check_plan(plan_of(100 * kMiB), left(50 * kMiB), ceiling);
  ASSERT_TRUE(told.has_value());
  for (const char* part : {"100", "50", "memory.max of /box"}) {
    EXPECT_NE(told->find(part), std::string::npos) << part;
  }
  EXPECT_EQ(*check_plan(plan_of(50 * kMiB), left(50 * kMiB), ceiling), "");
}

}  // namespace
}  // namespace penstock
