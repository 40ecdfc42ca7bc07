#include "pack/bit_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace penstock {
namespace {

using testing::HasSubstr;

constexpr ExpertShape kShape = {
    .num_layers = 3, .num_experts = 5, .hidden_size = 192, .intermediate_size = 128};

std::vector<LayerTypes> all_types() {
  std::vector<LayerTypes> all;
  for (const DType gate_up : kPlannedTypes) {
    for (const DType down : kPlannedTypes) all.push_back({gate_up, down});
  }
  return all;
}

// As real ones fall with the bits, each layer by a size of its own; some are no better with more.
std::vector<LayerLosses> random_losses(uint32_t seed, int64_t num_layers) {
  std::mt19937 random(seed);
  const auto uniform = [&] { return static_cast<double>(random() % 1000 + 1) / 1000; };
  std::vector<LayerLosses> losses(static_cast<size_t>(num_layers));
  for (LayerLosses& layer : losses) {
    for (auto* part : {&layer.gate_up, &layer.down}) {
      double loss = uniform();
      for (double& value : *part) {
        value = loss;
        if (random() % 5 != 0) loss *= 0.1 + 0.4 * uniform();
      }
    }
  }
  return losses;
}

uint64_t largest_allowed(const ExpertShape& shape, uint64_t target, uint64_t least_record,
                         uint64_t most_bytes) {
  const auto records = static_cast<uint64_t>(shape.num_layers * shape.num_experts);
  const uint64_t mean = std::min(target, most_bytes) / records;
  return std::max(least_record, mean + mean / 4);
}

// By trying all: the least loss with at most `target` bytes, as the real layout counts them.
double least_loss(const ExpertShape& shape, const std::vector<LayerLosses>& losses, uint64_t target,
                  uint64_t least_record, uint64_t most_bytes) {
  const uint64_t largest = largest_allowed(shape, target, least_record, most_bytes);
  const std::vector<LayerTypes> all = all_types();
  double best = std::numeric_limits<double>::infinity();
  for (const LayerTypes& a : all) {
    for (const LayerTypes& b : all) {
      for (const LayerTypes& c : all) {
        const auto parts = *lay_out_experts(shape, record_forms({a, b, c}));
        if (parts.file_bytes() > target || parts.largest_record() > largest) continue;
        best = std::min(best, losses[0].of(a) + losses[1].of(b) + losses[2].of(c));
      }
    }
  }
  return best;
}

TEST(BitPlan, is_the_best_of_all_that_fit) {
  int mixed = 0;
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    const auto losses = random_losses(seed, kShape.num_layers);
    const BitPlan least = *plan_bits(kShape, losses, uint64_t{1} << 40);
    const uint64_t least_record =
        least.least_bytes / static_cast<uint64_t>(kShape.num_layers * kShape.num_experts);
    for (const double share : {0.0, 0.05, 0.2, 0.35, 0.5, 0.8, 1.0}) {
      const uint64_t target =
          least.least_bytes +
          static_cast<uint64_t>(share * static_cast<double>(least.most_bytes - least.least_bytes));
      const BitPlan plan = *plan_bits(kShape, losses, target);
      EXPECT_DOUBLE_EQ(plan.loss(),
                       least_loss(kShape, losses, target, least_record, least.most_bytes))
          << seed << " " << share;
      const ExpertParts parts = *lay_out_experts(kShape, record_forms(plan.layers));
      EXPECT_EQ(plan.total_bytes, parts.file_bytes());
      EXPECT_LE(plan.total_bytes, target);
      EXPECT_LE(parts.largest_record(),
                largest_allowed(kShape, target, least_record, least.most_bytes));
      if (!(plan.layers[0] == plan.layers[1] && plan.layers[1] == plan.layers[2])) ++mixed;
    }
  }
  EXPECT_GT(mixed, 8);
}

TEST(BitPlan, more_bytes_never_lose_more_and_the_same_losses_give_the_same_plan) {
  ExpertShape shape = kShape;
  shape.num_layers = 40;
  const auto losses = random_losses(7, shape.num_layers);
  const BitPlan most = *plan_bits(shape, losses, uint64_t{1} << 40);
  double last = std::numeric_limits<double>::infinity();
  for (uint64_t target = most.least_bytes; target < most.most_bytes;
       target += (most.most_bytes - most.least_bytes) / 23) {
    const BitPlan plan = *plan_bits(shape, losses, target);
    EXPECT_LE(plan.loss(), last);
    EXPECT_EQ(plan.layers, plan_bits(shape, losses, target)->layers);
    last = plan.loss();
  }
}

// All alike: the fewest bytes that lose nothing more, and nothing that depends on how it was searched.
TEST(BitPlan, of_equal_losses_the_smaller_record) {
  const std::vector<LayerLosses> losses(3);
  const BitPlan plan = *plan_bits(kShape, losses, uint64_t{1} << 40);
  EXPECT_EQ(plan.total_bytes, plan.least_bytes);
  for (const LayerTypes& layer : plan.layers) EXPECT_EQ(to_text(layer), "q2");
}

TEST(BitPlan, coarser_units_stay_below_the_bytes_and_lose_little_more) {
  ExpertShape shape = kShape;
  shape.num_layers = 30;
  shape.hidden_size = 2048;
  shape.intermediate_size = 512;
  const auto losses = random_losses(3, shape.num_layers);
  const BitPlan all = *plan_bits(shape, losses, uint64_t{1} << 50);
  const uint64_t target = (2 * all.least_bytes + all.most_bytes) / 3;
  const BitPlan exact = *plan_bits(shape, losses, target);
  const BitPlan coarse = *plan_bits(shape, losses, target, 3000);
  EXPECT_LE(coarse.total_bytes, target);
  EXPECT_GE(coarse.loss(), exact.loss());
  EXPECT_LE(coarse.loss(), 1.1 * exact.loss());
}

TEST(BitPlan, too_few_bytes_are_refused_with_the_least_and_the_most) {
  const auto losses = random_losses(1, kShape.num_layers);
  const BitPlan any = *plan_bits(kShape, losses, uint64_t{1} << 40);
  EXPECT_TRUE(plan_bits(kShape, losses, any.least_bytes));
  for (const uint64_t target : {uint64_t{0}, any.least_bytes - 1}) {
    const auto refused = plan_bits(kShape, losses, target);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    for (const std::string& part : {std::string("--target-bytes"), std::to_string(any.least_bytes),
                                    std::to_string(any.most_bytes)}) {
      EXPECT_THAT(refused.error().message, HasSubstr(part));
    }
  }
}

TEST(BitPlan, is_told_in_lines_of_layers_that_are_alike) {
  BitPlan plan;
  plan.layers = {{DType::kQ4, DType::kQ4}, {DType::kQ3, DType::kQ4}, {DType::kQ3, DType::kQ4}};
  plan.losses = {0.5, 0.25, 0.25};
  plan.bytes = {4096, 2048, 2048};
  plan.total_bytes = 8192;
  plan.target_bytes = 9000;
  plan.bits_per_weight = 3.75;
  const std::string table = to_table(plan);
  EXPECT_THAT(table, HasSubstr("3.75 bits per weight, loss 1\n"));
  EXPECT_THAT(table,
              HasSubstr("| 0 | q4 | q4 | 4.00 KiB | 0.5 |\n| 1-2 | q3 | q4 | 4.00 KiB | 0.5 |\n"));
  EXPECT_EQ(to_text(plan.layers[1]), "q3, down q4");
  const Json json = to_json(plan);
  EXPECT_EQ(json["layers"].size(), 3u);
  EXPECT_EQ(json["layers"][2]["down"], "q4");
  EXPECT_EQ(json["total_bytes"], 8192);
}

}  // namespace
}  // namespace penstock
