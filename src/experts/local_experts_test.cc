// Rows through experts that lie in files in any way: the same bits as a call of the ops with all
// matrices at hand.

#include "experts/local_experts.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <random>
#include <string>

#include "experts/test_laid_experts.h"

namespace penstock {
namespace {

using test::Laid;
using test::LaidExperts;
using test::OddTier;
using test::OwnedMatrix;
using test::OwnedRows;
using test::same_bits;
using test::Values;

constexpr int kExperts = 6;
constexpr int64_t kTokensMax = 9;

class ExpertsByRows : public testing::TestWithParam<Laid>, protected LaidExperts {
 protected:
  ExpertsByRows() : LaidExperts(GetParam(), kExperts, kTokensMax) {}
};

INSTANTIATE_TEST_SUITE_P(Laid, ExpertsByRows,
                         testing::Values(Laid{.gate_up_together = true},
                                         Laid{.gate_up_together = true, .first = 4099, .gap = 13},
                                         Laid{.first = 96, .gap = 0}, Laid{.first = 8191, .gap = 1},
                                         Laid{.first = 4096, .gap = 4096}),
                         [](const auto& test) {
                           return std::string(test.param.gate_up_together ? "together" : "apart") +
                                  "_from_" + std::to_string(test.param.first);
                         });

TEST_P(ExpertsByRows, rows_are_the_same_bits_wherever_the_experts_lie) {
  Values source(9);
  const OwnedRows x(source, kTokensMax, kHidden);
  for (const int num_slots : {1, 3, kLayers * kExperts}) {
    make(num_slots, static_cast<uint64_t>(num_slots));
    std::mt19937 random(static_cast<uint32_t>(num_slots));
    for (int run = 0; run < 18; ++run) {
      const int layer = run % kLayers;
      const Routing chosen = routing(run % 4 == 0 ? 1 : kTokensMax - run % 3, random);
      const OwnedRows out(kTokensMax * kTopK, kHidden);
      ExpertRun begun = local_->begin(layer, chosen, x.rows);
      const auto times = begun.finish(out.rows, {});
      ASSERT_TRUE(times.has_value()) << times.error().message;
      EXPECT_TRUE(same_bits(out.values, expected(layer, chosen, x.rows).values)) << run;
    }
    EXPECT_EQ(store_->stats().evictions > 0, num_slots < kLayers * kExperts);
    EXPECT_GT(store_->stats().bytes_verified, 0u);
  }
}

TEST_P(ExpertsByRows, a_run_that_is_dropped_or_cancelled_leaves_nothing_behind) {
  make(4);
  Values source(2);
  std::mt19937 random(2);
  const OwnedRows x(source, kTokensMax, kHidden), out(kTokensMax * kTopK, kHidden);
  const Routing chosen = routing(kTokensMax, random);
  for (int round = 0; round < 5; ++round) {
    { const ExpertRun dropped = local_->begin(1, chosen, x.rows); }
    EXPECT_EQ(store_->resize(2 + round % 2), 2 + round % 2);  // nobody holds a slot
    std::stop_source stop;
    stop.request_stop();
    {
      ExpertRun cancelled = local_->begin(2, chosen, x.rows);
      EXPECT_EQ(cancelled.finish(out.rows, stop.get_token()).error().code, ErrorCode::kCancelled);
    }
    ExpertRun whole = local_->begin(0, chosen, x.rows);
    ASSERT_TRUE(whole.finish(out.rows, {}).has_value());
    EXPECT_TRUE(same_bits(out.values, expected(0, chosen, x.rows).values));
  }
}

TEST_P(ExpertsByRows, a_read_that_fails_is_an_error_with_its_place_and_heals) {
  Values source(4);
  std::mt19937 random(4);
  const OwnedRows x(source, kTokensMax, kHidden), out(kTokensMax * kTopK, kHidden);
  const Routing chosen = routing(kTokensMax, random);
  make(kExperts);
  faults_.fail_read(faults_.reads_submitted() + 1, EIO, Lasting::kForGood);
  {
    ExpertRun failed = local_->begin(1, chosen, x.rows);
    const auto times = failed.finish(out.rows, {});
    ASSERT_FALSE(times.has_value());
    EXPECT_EQ(times.error().code, ErrorCode::kIo);
    EXPECT_NE(times.error().message.find("layer 1 expert"), std::string::npos);
  }
  faults_.heal();
  ExpertRun healed = local_->begin(1, chosen, x.rows);
  ASSERT_TRUE(healed.finish(out.rows, {}).has_value());
  EXPECT_TRUE(same_bits(out.values, expected(1, chosen, x.rows).values));
}

TEST_P(ExpertsByRows, a_tier_computes_what_it_has_and_may_be_lost_at_any_call) {
  Values source(12);
  const OwnedRows x(source, kTokensMax, kHidden);
  constexpr int kRuns = 10;
  for (int lost_at = 0; lost_at <= kRuns; ++lost_at) {
    OddTier tier(*this);
    tier.calls_before_loss = lost_at;
    make(lost_at % 2 == 0 ? 2 : kLayers * kExperts, 3, &tier);
    std::mt19937 random(4);
    for (int run = 0; run < kRuns; ++run) {
      const int layer = run % kLayers;
      const Routing chosen = routing(run % 3 == 0 ? 1 : kTokensMax, random);
      const OwnedRows out(kTokensMax * kTopK, kHidden);
      ExpertRun begun = local_->begin(layer, chosen, x.rows);
      const auto times = begun.finish(out.rows, {});
      ASSERT_TRUE(times.has_value()) << times.error().message;
      EXPECT_TRUE(same_bits(out.values, expected(layer, chosen, x.rows).values)) << run;
    }
    EXPECT_EQ(tier.ends, kRuns);
    EXPECT_GT(tier.offers, 0);
    EXPECT_TRUE(tier.computed > 0 || lost_at < 3);
    EXPECT_GE(store_->stats().nearer, static_cast<uint64_t>(tier.computed));
    { const ExpertRun dropped = local_->begin(0, routing(3, random), x.rows); }
    EXPECT_EQ(tier.ends, kRuns + 1);
    local_.reset();
  }
}

TEST_P(ExpertsByRows, nothing_is_read_ahead_that_a_tier_has) {
  OddTier tier(*this);
  make(kLayers * kExperts - 1, 1, &tier);
  Values source(6);
  const OwnedRows x(source, kTokensMax, kHidden), y(kTokensMax, kHidden);
  const OwnedMatrix matrix(DType::kF32, source, kHidden, kHidden);
  const Projection projection[] = {{matrix.matrix, nullptr, y.rows}};
  const Routing guess{.num_tokens = 3, .top_k = 2, .experts = {4, 2, 4, 5, 4, 1}, .weights = {}};
  local_->foresee(1, guess);
  for (int op = 0; op < 20; ++op) backend_->matmul(x.rows, projection);
  EXPECT_EQ(store_->stats().prefetches, 2u);
  local_.reset();
}

TEST_P(ExpertsByRows, what_is_foreseen_is_read_between_ops) {
  make(kLayers * kExperts - 1);
  Values source(6);
  const OwnedRows x(source, kTokensMax, kHidden), y(kTokensMax, kHidden);
  const OwnedMatrix matrix(DType::kF32, source, kHidden, kHidden);
  const Projection projection[] = {{matrix.matrix, nullptr, y.rows}};
  EXPECT_TRUE(local_->wants_foresight());
  Routing guess{.num_tokens = 3, .top_k = 2, .experts = {4, 2, 4, 5, 4, 1}, .weights = {}};
  local_->foresee(1, guess);
  const uint64_t at_once = store_->stats().prefetches;
  EXPECT_LT(at_once, 4u);
  for (int op = 0; op < 20; ++op) backend_->matmul(x.rows, projection);
  EXPECT_EQ(store_->stats().prefetches, 4u);
  const Routing chosen{.num_tokens = 1, .top_k = 2, .experts = {4, 5}, .weights = {}};
  const OwnedRows out(kTokensMax * kTopK, kHidden);
  ExpertRun run = local_->begin(1, chosen, x.rows);
  ASSERT_TRUE(run.finish(out.rows, {}).has_value());
  EXPECT_EQ(store_->stats().prefetches_used, 2u);
  EXPECT_TRUE(same_bits(out.values, expected(1, chosen, x.rows).values));
}

TEST_P(ExpertsByRows, nobody_is_called_between_ops_once_the_experts_are_gone) {
  make(4);
  local_.reset();
  store_.reset();
  Values source(8);
  const OwnedRows x(source, 2, kHidden), y(2, kHidden);
  const OwnedMatrix matrix(DType::kF32, source, kHidden, kHidden);
  const Projection projection[] = {{matrix.matrix, nullptr, y.rows}};
  backend_->matmul(x.rows, projection);
}

}  // namespace
}  // namespace penstock
