// The backend as a whole: creation, the row ops, and what no op may depend on.
#include "compute/cpu/cpu_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "compute/exact_math.h"
#include "compute/reference.h"
#include "compute/test_values.h"

namespace penstock {
namespace {

using test::OwnedMatrix;
using test::OwnedRows;
using test::same_bits;
using test::Values;
using testing::ElementsAre;

constexpr DeltaNetShape kDeltaNet = {2, 4, 16, 32, 4, 1e-6f};
constexpr AttentionShape kAttention = {4, 2, 32, 8, 1e-6f};
constexpr BackendLimits kLimits = {.tokens = 600,
                                   .hidden_size = 128,
                                   .width = 2048,
                                   .top_k = 4,
                                   .expert_width = 64,
                                   .context = 700,
                                   .attention = kAttention,
                                   .delta_net = kDeltaNet};

TEST(CpuBackend, targets_are_listed_best_first_and_each_can_be_asked_for) {
  const std::vector<std::string> targets = CpuBackend::targets();
  ASSERT_FALSE(targets.empty());
  EXPECT_TRUE(CpuBackend::create(2, kLimits).value()->description().starts_with(targets.front()));
  for (const std::string& target : targets) {
    const auto ops = CpuBackend::create(2, kLimits, {.target = target}).value();
    EXPECT_EQ(ops->description(), target + ", fixed16, 2 threads");
  }
  const auto none = CpuBackend::create(1, kLimits, {.target = "MMX"});
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(none.error().message, testing::HasSubstr(targets.back()));
}

TEST(CpuBackend, a_refused_allocation_is_an_error_that_names_the_bytes) {
  fail_allocation_after(0);
  const auto refused = CpuBackend::create(2, kLimits);
  fail_allocation_after(-1);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_TRUE(CpuBackend::create(2, kLimits).has_value());
}

TEST(CpuBackend, scratch_grows_with_threads_tokens_and_context) {
  const int64_t bytes = CpuBackend::scratch_bytes(2, kLimits);
  EXPECT_GT(bytes, 0);
  EXPECT_GT(CpuBackend::scratch_bytes(3, kLimits), bytes);
  BackendLimits more = kLimits;
  more.tokens = 1024;
  EXPECT_GT(CpuBackend::scratch_bytes(2, more), bytes);
  more = kLimits;
  more.context = 5000;
  EXPECT_GT(CpuBackend::scratch_bytes(2, more), bytes);
}

class RowOpsTest : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<CpuBackend> ops = CpuBackend::create(2, kLimits, {.target = GetParam()}).value();
  ReferenceBackend reference;
};

TEST_P(RowOpsTest, rms_norm_matches_the_reference_at_every_width) {
  for (const int64_t width : {1, 3, 16, 63, 64, 65, 128, 200, 2048}) {
    Values source(1);
    const OwnedRows x(source, 5, width, 3);
    const std::vector<float> weight = source.normal(width);
    const OwnedRows out(5, width), expected(5, width);
    ops->rms_norm(x.rows, weight, 1e-6f, out.rows);
    reference.rms_norm(x.rows, weight, 1e-6f, expected.rows);
    for (int64_t t = 0; t < 5; ++t) {
      for (size_t i = 0; i < static_cast<size_t>(width); ++i) {
        const float value = expected.rows.row(t)[i];
        EXPECT_NEAR(out.rows.row(t)[i], value, std::fabs(value) * 0x1p-21);
      }
    }
  }
}

TEST_P(RowOpsTest, rms_norm_of_zeros_is_zero_and_gaps_between_rows_stay) {
  const OwnedRows x(3, 37);
  OwnedRows out(3, 37);
  std::fill(out.values.begin(), out.values.end(), 7.0f);
  const std::vector<float> weight(37, 2.0f);
  ops->rms_norm(x.rows, weight, 1e-6f, out.rows);
  for (size_t i = 0; i < out.values.size(); ++i) {
    EXPECT_EQ(out.values[i], i % 42 < 37 ? 0.0f : 7.0f);
  }
}

TEST_P(RowOpsTest, add_is_exact_and_may_be_in_place) {
  Values source(2);
  const OwnedRows x(source, 600, 133), y(source, 600, 133);
  const OwnedRows expected(600, 133);
  reference.add(x.rows, y.rows, expected.rows);
  ops->add(x.rows, y.rows, x.rows);
  for (int64_t t = 0; t < 600; ++t) EXPECT_TRUE(same_bits(x.rows.row(t), expected.rows.row(t)));
}

TEST_P(RowOpsTest, embed_gives_the_rows_of_the_table) {
  Values source(3);
  for (const DType dtype : test::kPanelTypes) {
    const OwnedMatrix table(dtype, source, 50, 128);
    const std::vector<int32_t> tokens = {49, 0, 17, 17};
    const OwnedRows out(4, 128), expected(4, 128);
    ops->embed(table.matrix, tokens, out.rows);
    reference.embed(table.matrix, tokens, expected.rows);
    EXPECT_TRUE(same_bits(out.values, expected.values));
  }
}

TEST_P(RowOpsTest, combine_adds_the_experts_in_order_and_the_gated_shared_one) {
  Values source(4);
  const OwnedRows rows(source, 7 * 4, 129), shared(source, 7, 129), gate(source, 7, 1, 3);
  const OwnedRows y(7, 129), expected(7, 129);
  const Routing routing = {7, 4, std::vector<int32_t>(28), source.normal(28)};
  ops->combine(rows.rows, routing, shared.rows, gate.rows, y.rows);
  reference.combine(rows.rows, routing, shared.rows, gate.rows, expected.rows);
  for (int64_t t = 0; t < 7; ++t) {
    for (size_t i = 0; i < 129; ++i) {
      EXPECT_NEAR(y.rows.row(t)[i], expected.rows.row(t)[i], 1e-5);
    }
  }
}

TEST_P(RowOpsTest, combine_has_the_bits_of_its_plain_order_of_operations) {
  Values source(7);
  const OwnedRows rows(source, 3 * 8, 133), shared(source, 3, 133), gate(source, 3, 1, 3);
  const OwnedRows y(3, 133);
  const Routing routing = {3, 8, std::vector<int32_t>(24), source.normal(24)};
  ops->combine(rows.rows, routing, shared.rows, gate.rows, y.rows);
  for (int64_t t = 0; t < 3; ++t) {
    const float open = exact_sigmoid(gate.rows.row(t)[0]);
    for (size_t i = 0; i < 133; ++i) {
      float sum = 0;
      for (int64_t k = 0; k < 8; ++k) {
        const float weight = routing.weights[static_cast<size_t>(t * 8 + k)];
        sum = sum + exact_product(weight, rows.rows.row(t * 8 + k)[i]);
      }
      EXPECT_EQ(y.rows.row(t)[i], sum + exact_product(open, shared.rows.row(t)[i]));
    }
  }
}

TEST_P(RowOpsTest, a_closed_or_open_shared_gate_saturates) {
  const std::vector<float> one(1, 1.0f);
  OwnedRows rows(1, 16, 0), shared(1, 16, 0), gate(1, 1, 0);
  const OwnedRows y(1, 16, 0);
  std::fill(rows.values.begin(), rows.values.end(), 2.0f);
  std::fill(shared.values.begin(), shared.values.end(), 3.0f);
  const Routing routing = {1, 1, {0}, one};
  for (const auto& [logit, expected] : {std::pair{-1000.0f, 2.0f}, {1000.0f, 5.0f}, {0.0f, 3.5f}}) {
    gate.values[0] = logit;
    ops->combine(rows.rows, routing, shared.rows, gate.rows, y.rows);
    EXPECT_EQ(y.values[0], expected);
  }
}

TEST_P(RowOpsTest, routing_matches_the_reference_and_sums_to_one) {
  Values source(5);
  const OwnedRows logits(source, 300, 257, 3);
  Routing routing, expected;
  for (Routing* each : {&routing, &expected}) {
    each->experts.resize(300 * 10);
    each->weights.resize(300 * 10);
  }
  EXPECT_TRUE(ops->route_top_k(logits.rows, 10, routing));
  EXPECT_TRUE(reference.route_top_k(logits.rows, 10, expected));
  EXPECT_EQ(routing.experts, expected.experts);
  for (size_t i = 0; i < routing.weights.size(); ++i) {
    EXPECT_NEAR(routing.weights[i], expected.weights[i], 1e-6);
  }
  for (size_t t = 0; t < 300; ++t) {
    const auto first = routing.weights.begin() + static_cast<int64_t>(t) * 10;
    EXPECT_NEAR(std::accumulate(first, first + 10, 0.0), 1, 1e-6);
  }
}

TEST_P(RowOpsTest, routing_as_it_is_gives_the_probabilities_over_all_experts) {
  Values source(7);
  const OwnedRows logits(source, 40, 33, 3);
  Routing routing, expected;
  for (Routing* each : {&routing, &expected}) {
    each->experts.resize(40 * 5);
    each->weights.resize(40 * 5);
  }
  ops->route_top_k(logits.rows, {5, false}, routing).value();
  reference.route_top_k(logits.rows, {5, false}, expected).value();
  EXPECT_EQ(routing.experts, expected.experts);
  for (size_t t = 0; t < 40; ++t) {
    double largest = -INFINITY, all = 0;
    for (const float logit : logits.rows.row(static_cast<int64_t>(t))) {
      largest = std::max(largest, double{logit});
    }
    for (const float logit : logits.rows.row(static_cast<int64_t>(t))) {
      all += std::exp(logit - largest);
    }
    EXPECT_NEAR(routing.weights[t * 5], 1 / all, 1e-6);
    for (size_t i = t * 5; i < t * 5 + 5; ++i) {
      EXPECT_NEAR(routing.weights[i], expected.weights[i], 1e-6);
    }
  }
}

TEST_P(RowOpsTest, combining_without_a_shared_expert_is_the_sum_alone) {
  Values source(8);
  const OwnedRows rows(source, 6, 19), y(2, 19), expected(2, 19);
  const Routing routing = {2, 3, std::vector<int32_t>(6), {0.5f, 0.25f, 0.125f, 1, 0, -1}};
  ops->combine(rows.rows, routing, {}, {}, y.rows);
  reference.combine(rows.rows, routing, {}, {}, expected.rows);
  for (size_t i = 0; i < y.values.size(); ++i) EXPECT_NEAR(y.values[i], expected.values[i], 1e-5);
  const auto last = [&](int64_t row) { return rows.rows.row(row)[18]; };
  EXPECT_NEAR(y.rows.row(0)[18], 0.5f * last(0) + 0.25f * last(1) + 0.125f * last(2), 1e-5);
}

TEST_P(RowOpsTest, equal_logits_are_chosen_by_lower_index) {
  OwnedRows logits(1, 6, 0);
  logits.values = {1, 2, 1, 2, 2, 0};
  logits.rows.data = logits.values.data();
  Routing routing = {0, 0, std::vector<int32_t>(4), std::vector<float>(4)};
  EXPECT_TRUE(ops->route_top_k(logits.rows, 4, routing));
  EXPECT_THAT(routing.experts, ElementsAre(1, 3, 4, 0));
}

TEST_P(RowOpsTest, logits_that_are_not_numbers_never_give_an_expert_that_is_not_there) {
  OwnedRows logits(1, 5, 0);
  logits.values = {NAN, NAN, 3, NAN, NAN};
  logits.rows.data = logits.values.data();
  Routing routing = {0, 0, std::vector<int32_t>(3), std::vector<float>(3)};
  EXPECT_TRUE(ops->route_top_k(logits.rows, 3, routing));
  EXPECT_THAT(routing.experts, ElementsAre(2, 0, 1));
}

INSTANTIATE_TEST_SUITE_P(Targets, RowOpsTest, testing::ValuesIn(CpuBackend::targets()),
                         [](const auto& test) { return test.param; });

// The outputs of every op on the same inputs, one after the other.
std::vector<float> run_everything(Backend& ops, int64_t tokens) {
  Values source(6);
  std::vector<float> all;
  const auto keep = [&all](const OwnedRows& rows) {
    all.insert(all.end(), rows.values.begin(), rows.values.end());
  };
  const OwnedMatrix table(DType::kQ4, source, 64, 128), wide(DType::kQ4, source, 300, 128),
      router(DType::kF32, source, 16, 128), gate(DType::kQ8, source, 64, 128),
      up(DType::kQ8, source, 64, 128), down(DType::kQ8, source, 128, 64);
  const OwnedMatrix gate_up(DType::kQ3, source, 128, 128), expert_down(DType::kQ4, source, 128, 64);

  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (size_t t = 0; t < ids.size(); ++t) ids[t] = static_cast<int32_t>(t * 7 % 64);
  const OwnedRows x(tokens, 128), h(tokens, 128), logits(tokens, 16), out(tokens, 300);
  ops.embed(table.matrix, ids, x.rows);
  ops.rms_norm(x.rows, source.normal(128), 1e-6f, h.rows);
  ops.add(x.rows, h.rows, x.rows);
  const Projection projections[] = {{wide.matrix, nullptr, out.rows},
                                    {router.matrix, nullptr, logits.rows}};
  ops.matmul(x.rows, projections);
  for (const OwnedRows* rows : {&x, &h, &out, &logits}) keep(*rows);

  Routing routing = {0, 0, std::vector<int32_t>(ids.size() * 4),
                     std::vector<float>(ids.size() * 4)};
  EXPECT_TRUE(ops.route_top_k(logits.rows, 4, routing));
  all.insert(all.end(), routing.weights.begin(), routing.weights.end());
  const OwnedRows hidden(tokens * 4, 64), expert_rows(tokens * 4, 128);
  std::vector<int32_t> places(ids.size() * 4), rows_of_x(places.size());
  std::iota(places.begin(), places.end(), 0);
  for (size_t i = 0; i < places.size(); ++i) rows_of_x[i] = places[i] / 4;
  const size_t third = places.size() / 3;
  const std::span<const int32_t> all_places(places), all_rows(rows_of_x);
  const ExpertWork work[] = {work_of_gate_up(gate_up.matrix, expert_down.matrix,
                                             all_rows.first(third), all_places.first(third)),
                             work_of_gate_up(gate_up.matrix, expert_down.matrix,
                                             all_rows.subspan(third), all_places.subspan(third))};
  ops.expert_gate_up(x.rows, work, hidden.rows);
  ops.expert_down(hidden.rows, work, expert_rows.rows);
  const OwnedRows shared(tokens, 128), y(tokens, 128), shared_gate(source, tokens, 1);
  ops.dense_ffn(x.rows, gate.matrix, up.matrix, down.matrix, shared.rows);
  ops.combine(expert_rows.rows, routing, shared.rows, shared_gate.rows, y.rows);
  for (const OwnedRows* rows : {&hidden, &expert_rows, &shared, &y}) keep(*rows);

  const OwnedRows q_gate(source, tokens, 256), k(source, tokens, 64), v(source, tokens, 64),
      mixed(tokens, 128);
  const int64_t part = kAttention.kv_width() * kKvPagePositions;
  std::vector<float> cache(static_cast<size_t>(4 * part));
  float* const pages[] = {cache.data(), cache.data() + 2 * part};
  const std::vector<float> norms = source.normal(32), rope = source.normal(700 * 4);
  ops.attention({.shape = kAttention,
                 .weights = {norms.data(), norms.data()},
                 .rope = {rope.data(), rope.data()},
                 .cache = {pages, 0, part},
                 .first_position = 0,
                 .q = q_gate.rows,
                 .k = k.rows,
                 .v = v.rows,
                 .out = mixed.rows});
  keep(mixed);
  const int64_t channels = kDeltaNet.conv_channels();
  const OwnedRows qkv(source, tokens, channels), z(source, tokens, 128), b(source, tokens, 4),
      a(source, tokens, 4), delta(tokens, 128);
  const std::vector<float> conv = source.normal(channels * 4), decay(4, -0.5f), zeros(4, 0.0f);
  std::vector<float> history(static_cast<size_t>(channels * 3)), memory(4 * 16 * 32);
  const DeltaNetState state = {history.data(), memory.data()};
  ops.delta_net({.shape = kDeltaNet,
                 .weights = {conv.data(), decay.data(), zeros.data(), norms.data()},
                 .before = state,
                 .after = state,
                 .ahead = {},
                 .qkv = qkv.rows,
                 .z = z.rows,
                 .b = b.rows,
                 .a = a.rows,
                 .out = delta.rows});
  keep(delta);
  all.insert(all.end(), memory.begin(), memory.end());
  return all;
}

TEST(CpuBackend, the_number_of_threads_changes_no_bit_of_any_op) {
  for (const int64_t tokens : {1, 37, 600}) {
    const auto expected = run_everything(*CpuBackend::create(1, kLimits).value(), tokens);
    for (const int threads : {2, 3, 5}) {
      const auto actual = run_everything(*CpuBackend::create(threads, kLimits).value(), tokens);
      EXPECT_TRUE(same_bits(actual, expected)) << threads << " threads, " << tokens << " tokens";
    }
  }
}

TEST(CpuBackend, all_instruction_sets_agree_in_every_bit_of_every_op) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    ASSERT_GE(CpuBackend::targets().size(), 2u);
  }
#endif
  for (const Arithmetic arithmetic : {Arithmetic::kFixed16, Arithmetic::kFloat32}) {
    for (const int64_t tokens : {1, 37}) {
      std::vector<float> expected;
      for (const std::string& target : CpuBackend::targets()) {
        const auto ops =
            CpuBackend::create(2, kLimits, {.target = target, .arithmetic = arithmetic}).value();
        const auto actual = run_everything(*ops, tokens);
        if (expected.empty()) expected = actual;
        EXPECT_TRUE(same_bits(actual, expected)) << target << " " << name_of(arithmetic);
      }
    }
  }
}

// What experts of two tokens compute from x of this size, on this thread alone.
std::vector<float> run_experts(const std::string& target, float size) {
  const auto ops = CpuBackend::create(1, kLimits, {.target = target}).value();
  Values source(8);
  std::vector<float> all;
  const OwnedMatrix gate_up(DType::kQ4, source, 128, 128), down(DType::kQ4, source, 128, 64);
  const OwnedRows x(source, 2, 128, size), shared(source, 2, 128, size);
  const OwnedRows shared_gate(source, 2, 1, 200), logits(source, 2, 16, 60);
  const OwnedRows hidden(8, 64), rows(8, 128), y(2, 128);
  Routing routing = {0, 0, std::vector<int32_t>(8), std::vector<float>(8)};
  EXPECT_TRUE(ops->route_top_k(logits.rows, 4, routing));
  const std::vector<int32_t> tokens = {0, 0, 0, 0, 1, 1, 1, 1}, places = {0, 1, 2, 3, 4, 5, 6, 7};
  const ExpertWork work[] = {work_of_gate_up(gate_up.matrix, down.matrix, tokens, places)};
  ops->expert_gate_up(x.rows, work, hidden.rows);
  ops->expert_down(hidden.rows, work, rows.rows);
  ops->combine(rows.rows, routing, shared.rows, shared_gate.rows, y.rows);
  for (const OwnedRows* each : {&hidden, &rows, &y}) {
    all.insert(all.end(), each->values.begin(), each->values.end());
  }
  all.insert(all.end(), routing.weights.begin(), routing.weights.end());
  return all;
}

// The promise to devices that have no subnormal numbers (compute/panel.h, compute/exact_math.h).
TEST(CpuBackend, flushing_subnormal_numbers_changes_no_bit_of_an_expert) {
  for (const std::string& target : CpuBackend::targets()) {
    for (const float size : {1.0f, 0x1p-20f, 0x1p-40f, 0x1p-58f, 0x1p-70f, 0x1p-120f, 0x1p40f}) {
      const std::vector<float> kept = run_experts(target, size);
      const test::FlushSubnormals flushing;
      EXPECT_TRUE(same_bits(run_experts(target, size), kept)) << target << " " << size;
    }
  }
}

}  // namespace
}  // namespace penstock
