#include "engine/memory_plan.h"

#include <gtest/gtest.h>

#include "engine/test_sizes.h"
#include "model/shapes.h"

namespace penstock {
namespace {

using test::kMiB;

// A shape of 8 of 256 experts in 40 layers; of these `of_copy` from a copy of half the bytes.
PlanRequest request_with(int64_t of_copy) {
  PlanRequest request;
  request.config = *config_of(*find_model_shape("35b"), 0);
  request.resident_bytes = 2048 * kMiB;
  request.record_bytes = 2 * kMiB;
  request.copy = {.record_bytes = kMiB, .checksum_bytes = kMiB, .experts_per_token = of_copy};
  request.experts_per_token = request.config.num_experts_per_tok;
  request.context = 4096;
  request.threads = 2;
  request.budget_bytes = uint64_t{1} << 62;
  return request;
}

MemoryPlan plan_of(PlanRequest request, uint64_t budget) {
  request.budget_bytes = budget;
  return *plan_memory(request);
}

TEST(MemoryPlan, a_copy_has_slots_by_what_a_token_asks_of_it) {
  const PlanRequest request = request_with(2);
  const MemoryPlan most = plan_of(request, request.budget_bytes);
  EXPECT_EQ(most.num_slots, most.num_experts);
  EXPECT_EQ(most.copy_slots, most.num_experts);
  const MemoryPlan least = plan_of(request, most.minimum_bytes);
  EXPECT_EQ(least.num_slots, 6 * 40);
  EXPECT_EQ(least.copy_slots, 2 * 40);
  EXPECT_EQ(least.num_slots, least.floor_slots);
  EXPECT_EQ(least.copy_slots, least.copy_floor_slots);
  const MemoryPlan between = plan_of(request, most.minimum_bytes + 4096 * kMiB);
  EXPECT_NEAR(static_cast<double>(between.num_slots) / static_cast<double>(between.copy_slots), 3,
              0.05);
  EXPECT_EQ(between.slots_of_each, between.copy_slots);
}

TEST(MemoryPlan, a_budget_is_kept_and_used_whatever_comes_from_a_copy) {
  for (int64_t of_copy = 0; of_copy <= 8; ++of_copy) {
    const PlanRequest request = request_with(of_copy);
    const MemoryPlan most = plan_of(request, request.budget_bytes);
    for (int step = 0; step <= 16; ++step) {
      const uint64_t budget = most.minimum_bytes + (most.all_resident_bytes - most.minimum_bytes) *
                                                       static_cast<uint64_t>(step) / 16;
      const MemoryPlan plan = plan_of(request, budget);
      EXPECT_LE(plan.total_bytes, budget);
      EXPECT_GE(plan.num_slots, plan.floor_slots);
      EXPECT_GE(plan.copy_slots, plan.copy_floor_slots);
      EXPECT_LT(budget - plan.total_bytes, request.record_bytes) << of_copy << ", step " << step;
    }
    PlanRequest refused = request;
    refused.budget_bytes = most.minimum_bytes - 1;
    EXPECT_EQ(plan_memory(refused).error().code, ErrorCode::kOutOfMemory);
  }
}

// What one does not need the other has: all of the copy's experts are in memory before the model's.
TEST(MemoryPlan, slots_that_a_copy_has_no_experts_for_are_the_models) {
  PlanRequest request = request_with(6);
  request.chunk_tokens = 64;
  const MemoryPlan most = plan_of(request, request.budget_bytes);
  const MemoryPlan plan = plan_of(request, most.all_resident_bytes - 100 * request.record_bytes);
  EXPECT_EQ(plan.copy_slots, plan.num_experts);
  EXPECT_EQ(plan.num_slots, plan.num_experts - 100);
}

TEST(MemoryPlan, a_store_that_nobody_asks_has_one_slot) {
  const MemoryPlan none = plan_of(request_with(0), uint64_t{1} << 62);
  EXPECT_EQ(none.copy_slots, 1);
  EXPECT_EQ(none.slots_of_each, none.num_slots);
  const MemoryPlan all = plan_of(request_with(8), uint64_t{1} << 62);
  EXPECT_EQ(all.num_slots, 1);
  EXPECT_EQ(all.slots_of_each, all.copy_slots);
}

TEST(MemoryPlan, without_a_copy_nothing_is_set_aside_for_one) {
  PlanRequest request = request_with(2);
  const MemoryPlan with = plan_of(request, request.budget_bytes);
  request.copy = {};
  const MemoryPlan without = plan_of(request, request.budget_bytes);
  EXPECT_EQ(without.copy_slots, 0);
  EXPECT_EQ(without.num_slots, without.num_experts);
  EXPECT_LT(without.all_resident_bytes, with.all_resident_bytes);
  for (const PlanItem& item : without.items) EXPECT_NE(item.purpose, kCopySlotsItem);
}

}  // namespace
}  // namespace penstock
