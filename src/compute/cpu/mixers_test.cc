// Delta-net and attention of the CPU backend on every instruction set of this machine.
#include <gtest/gtest.h>

#include "compute/cpu/cpu_backend.h"
#include "compute/reference.h"
#include "compute/test_values.h"

namespace penstock {
namespace {

using test::OwnedRows;
using test::same_bits;
using test::Values;

void expect_near(Rows actual, Rows expected, double tolerance) {
  for (int64_t t = 0; t < expected.count; ++t) {
    for (size_t i = 0; i < static_cast<size_t>(expected.width); ++i) {
      ASSERT_NEAR(actual.row(t)[i], expected.row(t)[i], tolerance) << "row " << t << ", " << i;
    }
  }
}

// A delta-net layer with random weights and inputs for `tokens` tokens, and a state that is not
// zero.
struct DeltaNetCase {
  DeltaNetShape shape;
  std::vector<float> conv, decay, dt_bias, norm, history, memory;
  OwnedRows qkv, z, b, a;

  DeltaNetCase(const DeltaNetShape& of, int64_t tokens, Values source = Values(21))
      : shape(of),
        conv(source.normal(shape.conv_channels() * shape.conv_kernel)),
        decay(source.normal(shape.value_heads)),
        dt_bias(source.normal(shape.value_heads)),
        norm(source.normal(shape.value_dim)),
        history(source.normal(shape.conv_channels() * (shape.conv_kernel - 1))),
        memory(source.normal(int64_t{shape.value_heads} * shape.key_dim * shape.value_dim)),
        qkv(source, tokens, shape.conv_channels()),
        z(source, tokens, shape.value_heads * shape.value_dim),
        b(source, tokens, shape.value_heads),
        a(source, tokens, shape.value_heads) {
    for (float& value : decay) value = -std::fabs(value);
  }

  DeltaNetWeights weights() const {
    return {conv.data(), decay.data(), dt_bias.data(), norm.data()};
  }
  int64_t out_width() const { return int64_t{shape.value_heads} * shape.value_dim; }

  // Runs `tokens` in chunks of the given sizes, from the state of this case.
  struct Outcome {
    OwnedRows out;
    std::vector<float> history, memory;
  };
  Outcome run(Backend& ops, const std::vector<int64_t>& chunks) const {
    Outcome outcome{OwnedRows(qkv.rows.count, out_width()), history, memory};
    const DeltaNetState state = {outcome.history.data(), outcome.memory.data()};
    int64_t first = 0;
    for (const int64_t count : chunks) {
      ops.delta_net({.shape = shape,
                     .weights = weights(),
                     .before = state,
                     .after = state,
                     .ahead = {},
                     .qkv = qkv.rows.slice(first, count),
                     .z = z.rows.slice(first, count),
                     .b = b.rows.slice(first, count),
                     .a = a.rows.slice(first, count),
                     .out = outcome.out.rows.slice(first, count)});
      first += count;
    }
    return outcome;
  }
};

// Dimensions that fill vectors and dimensions that do not; every kernel width the models use.
const DeltaNetShape kDeltaNetShapes[] = {
    {2, 4, 16, 16, 4, 1e-6f},    {2, 6, 24, 16, 3, 1e-6f},   {1, 1, 7, 5, 2, 1e-6f},
    {2, 4, 32, 136, 4, 1e-6f},   {1, 2, 128, 128, 4, 1e-6f}, {2, 2, 8, 20, 1, 1e-6f},
    {4, 16, 128, 128, 4, 1e-6f},  // large enough to be written past the caches
};

BackendLimits delta_net_limits(const DeltaNetShape& shape) {
  return {.tokens = 40, .delta_net = shape};
}

class DeltaNetTest : public testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<CpuBackend> backend(const DeltaNetShape& shape, int threads = 2) {
    return CpuBackend::create(threads, delta_net_limits(shape), {.target = GetParam()}).value();
  }
};

TEST_P(DeltaNetTest, outputs_and_state_match_the_reference) {
  ReferenceBackend reference;
  for (const DeltaNetShape& shape : kDeltaNetShapes) {
    const DeltaNetCase test(shape, 21);
    const auto actual = test.run(*backend(shape), {21});
    const auto expected = test.run(reference, {21});
    // Values of order 1 go through sums of key_dim terms of order 1 in f32.
    const double tolerance = 0x1p-24 * 200 * shape.key_dim;
    expect_near(actual.out.rows, expected.out.rows, tolerance);
    for (size_t i = 0; i < expected.memory.size(); ++i) {
      ASSERT_NEAR(actual.memory[i], expected.memory[i], tolerance);
    }
    EXPECT_TRUE(same_bits(actual.history, expected.history));
    EXPECT_FALSE(same_bits(actual.memory, test.memory));
  }
}

// The state stops before a row on trial, and goes on from `ahead` as if it had been none.
TEST_P(DeltaNetTest, a_row_on_trial_changes_no_bit) {
  for (const DeltaNetShape& shape : kDeltaNetShapes) {
    for (const int64_t tokens : {1, 2, 5}) {
      const DeltaNetCase test(shape, tokens);
      for (const bool plain : {false, true}) {
        ReferenceBackend reference;
        const auto fast = backend(shape);
        Backend& ops = plain ? static_cast<Backend&>(reference) : *fast;
        const auto before = test.run(ops, {tokens - 1});
        const auto after = test.run(ops, {tokens - 1, 1});
        DeltaNetCase::Outcome trial{OwnedRows(tokens, test.out_width()), test.history, test.memory};
        std::vector<float> history(test.history.size(), 7), memory(test.memory.size(), 7);
        const DeltaNetState state = {trial.history.data(), trial.memory.data()};
        ops.delta_net({.shape = shape,
                       .weights = test.weights(),
                       .before = state,
                       .after = state,
                       .ahead = {history.data(), memory.data()},
                       .qkv = test.qkv.rows,
                       .z = test.z.rows,
                       .b = test.b.rows,
                       .a = test.a.rows,
                       .out = trial.out.rows});
        EXPECT_TRUE(same_bits(trial.out.values, after.out.values));
        EXPECT_TRUE(same_bits(trial.memory, before.memory));
        EXPECT_TRUE(same_bits(trial.history, before.history));
        EXPECT_TRUE(same_bits(memory, after.memory));
        EXPECT_TRUE(same_bits(history, after.history));
      }
    }
  }
}

// A pass that fails must have changed nothing: what is read and what is written may lie apart.
TEST_P(DeltaNetTest, a_state_written_elsewhere_has_the_same_bits_and_the_old_one_stays) {
  for (const DeltaNetShape& shape : kDeltaNetShapes) {
    for (const int64_t tokens : {1, 2, 5}) {
      for (const bool on_trial : {false, true}) {
        DeltaNetCase test(shape, tokens);
        const auto ops = backend(shape);
        const auto expected = test.run(
            *ops, on_trial ? std::vector<int64_t>{tokens - 1, 1} : std::vector<int64_t>{tokens});
        const auto halted = test.run(*ops, {tokens - (on_trial ? 1 : 0)});
        const std::vector<float> old_history = test.history, old_memory = test.memory;
        OwnedRows out(tokens, test.out_width());
        std::vector<float> history(old_history.size(), 7);
        std::vector<float> trial_history = history;
        // On cache lines, as the states of sequences lie.
        const OwnedRows memory(1, std::ssize(old_memory)), trial_memory(1, std::ssize(old_memory));
        DeltaNetState ahead;
        if (on_trial) ahead = {trial_history.data(), trial_memory.rows.data};
        ops->delta_net({.shape = shape,
                        .weights = test.weights(),
                        .before = {test.history.data(), test.memory.data()},
                        .after = {history.data(), memory.rows.data},
                        .ahead = ahead,
                        .qkv = test.qkv.rows,
                        .z = test.z.rows,
                        .b = test.b.rows,
                        .a = test.a.rows,
                        .out = out.rows});
        EXPECT_TRUE(same_bits(out.values, expected.out.values));
        EXPECT_TRUE(same_bits(memory.rows.row(0), halted.memory));
        EXPECT_TRUE(same_bits(history, halted.history));
        EXPECT_TRUE(same_bits(test.memory, old_memory));
        EXPECT_TRUE(same_bits(test.history, old_history));
        if (on_trial) {
          EXPECT_TRUE(same_bits(trial_memory.rows.row(0), expected.memory));
        }
      }
    }
  }
}

TEST_P(DeltaNetTest, cutting_the_tokens_into_chunks_changes_no_bit) {
  for (const DeltaNetShape& shape : kDeltaNetShapes) {
    const DeltaNetCase test(shape, 12);
    const auto ops = backend(shape);
    const auto whole = test.run(*ops, {12});
    for (const auto& chunks : std::vector<std::vector<int64_t>>{
             {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {2, 10}, {7, 1, 4}, {3, 3, 3, 3}}) {
      const auto cut = test.run(*ops, chunks);
      EXPECT_TRUE(same_bits(cut.out.values, whole.out.values));
      EXPECT_TRUE(same_bits(cut.memory, whole.memory));
      EXPECT_TRUE(same_bits(cut.history, whole.history));
    }
  }
}

TEST_P(DeltaNetTest, a_strong_decay_forgets_the_memory) {
  const DeltaNetShape shape = {1, 1, 16, 16, 4, 1e-6f};
  DeltaNetCase test(shape, 1);
  test.decay[0] = -1000;
  test.a.rows.row(0)[0] = 30;  // softplus(30 + dt_bias) is about 30: e^-30000 is zero
  auto forgotten = test.run(*backend(shape), {1});
  std::fill(test.memory.begin(), test.memory.end(), 0.0f);
  const auto empty = test.run(*backend(shape), {1});
  EXPECT_TRUE(same_bits(forgotten.memory, empty.memory));
  EXPECT_TRUE(same_bits(forgotten.out.values, empty.out.values));
}

// An attention layer with `context` positions, of which `tokens` are appended by the call.
struct AttentionCase {
  AttentionShape shape;
  int64_t context;
  KvForm form = KvForm::kFloat32;
  std::vector<float> q_norm, k_norm, cos, sin;
  OwnedRows q, k, v;

  AttentionCase(const AttentionShape& of, int64_t positions, Values source = Values(31))
      : shape(of),
        context(positions),
        q_norm(source.normal(shape.head_dim, 2)),
        k_norm(source.normal(shape.head_dim, 2)),
        cos(source.normal(context * shape.rotary_dim / 2)),
        sin(source.normal(context * shape.rotary_dim / 2)),
        q(source, context, shape.query_width()),
        k(source, context, shape.kv_width()),
        v(source, context, shape.kv_width()) {}

  // Floats of keys, or of values, in a page; keys begin at kGap, values kGap behind them.
  static constexpr int64_t kGap = 5;
  int64_t part_floats() const {
    return shape.kv_heads * kKvPagePositions * kv_row_floats(form, shape.head_dim);
  }

  struct Outcome {
    OwnedRows out;
    std::vector<float> cache;  // pages, the first one last
  };
  Outcome run(Backend& ops, const std::vector<int64_t>& chunks) const {
    const int64_t num_pages = context / kKvPagePositions + 1;
    const int64_t page_floats = 2 * (kGap + part_floats());
    Outcome outcome{OwnedRows(context, int64_t{shape.heads} * shape.head_dim),
                    std::vector<float>(static_cast<size_t>(num_pages * page_floats), NAN)};
    std::vector<float*> pages;
    for (int64_t page = num_pages; page-- > 0;) {
      pages.push_back(outcome.cache.data() + page * page_floats);
    }
    const KvCache cache = {pages, kGap, 2 * kGap + part_floats(), form};
    int64_t first = 0;
    for (const int64_t count : chunks) {
      ops.attention({.shape = shape,
                     .weights = {q_norm.data(), k_norm.data()},
                     .rope = {cos.data(), sin.data()},
                     .cache = cache,
                     .first_position = first,
                     .q = q.rows.slice(first, count),
                     .k = k.rows.slice(first, count),
                     .v = v.rows.slice(first, count),
                     .out = outcome.out.rows.slice(first, count)});
      first += count;
    }
    EXPECT_EQ(first, context);
    return outcome;
  }
};

const AttentionShape kAttentionShapes[] = {
    {4, 2, 32, 8, 1e-6f},        {16, 2, 64, 16, 1e-6f}, {16, 1, 40, 40, 1e-6f},
    {1, 1, 7, 2, 1e-6f},         {6, 2, 24, 0, 1e-6f},   {40, 2, 16, 4, 1e-6f},
    {4, 2, 32, 8, 1e-6f, false}, {6, 2, 136, 64, 1e-6f},
};

class AttentionTest : public testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<CpuBackend> backend(const AttentionShape& shape, int threads = 2) {
    const BackendLimits limits = {
        .tokens = 1200, .context = 1200, .kv_form = KvForm::kCodes8, .attention = shape};
    return CpuBackend::create(threads, limits, {.target = GetParam()}).value();
  }
};

TEST_P(AttentionTest, outputs_and_cache_match_the_reference) {
  ReferenceBackend reference;
  for (const AttentionShape& shape : kAttentionShapes) {
    const AttentionCase test(shape, 45);
    const auto actual = test.run(*backend(shape), {45});
    const auto expected = test.run(reference, {45});
    // Scores are of order 10 and sums of head_dim products; their errors pass through e^x.
    const double tolerance = 0x1p-24 * 40 * shape.head_dim;
    expect_near(actual.out.rows, expected.out.rows, tolerance);
    int64_t written = 0;
    for (size_t i = 0; i < expected.cache.size(); ++i) {
      if (std::isnan(expected.cache[i])) {
        ASSERT_TRUE(std::isnan(actual.cache[i])) << "a position that is not there was written";
        continue;
      }
      ++written;
      ASSERT_NEAR(actual.cache[i], expected.cache[i], 1e-5);
    }
    EXPECT_EQ(written, 2 * 45 * shape.kv_width());
  }
}

TEST_P(AttentionTest, contexts_of_several_segments_match_the_reference) {
  ReferenceBackend reference;
  const AttentionShape shape = {2, 1, 16, 4, 1e-6f};
  const AttentionCase test(shape, 1100);
  const auto actual = test.run(*backend(shape), {1100});
  const auto expected = test.run(reference, {1100});
  expect_near(actual.out.rows, expected.out.rows, 0x1p-24 * 40 * shape.head_dim);
}

TEST_P(AttentionTest, cutting_the_tokens_into_chunks_changes_no_bit) {
  for (const AttentionShape& shape : kAttentionShapes) {
    const AttentionCase test(shape, 13);
    const auto ops = backend(shape);
    const auto whole = test.run(*ops, {13});
    for (const auto& chunks : std::vector<std::vector<int64_t>>{
             {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {12, 1}, {2, 3, 8}}) {
      const auto cut = test.run(*ops, chunks);
      EXPECT_TRUE(same_bits(cut.out.values, whole.out.values)) << shape.heads;
    }
  }
}

// Decode steps over several segments are shared among the threads by segments, prompts are not.
TEST_P(AttentionTest, sharing_a_long_context_among_threads_changes_no_bit) {
  const AttentionShape shape = {2, 1, 16, 4, 1e-6f};
  const AttentionCase test(shape, 1100);
  const auto whole = test.run(*backend(shape, 1), {1100});
  std::vector<int64_t> steps = {1020, 3, 1, 2, 4};
  while (steps.size() < 75) steps.push_back(1);
  const auto cut = test.run(*backend(shape, 5), steps);
  EXPECT_TRUE(same_bits(cut.out.values, whole.out.values));
}

// Threads without a segment of their own take slices of positions and of components.
TEST_P(AttentionTest, sharing_a_short_context_among_threads_changes_no_bit) {
  const std::vector<int64_t> steps = {62, 1, 1, 2, 4, 3, 1, 5, 1};
  // One more whose rows of four tokens fill more than a tile.
  std::vector<AttentionShape> shapes(std::begin(kAttentionShapes), std::end(kAttentionShapes));
  shapes.push_back({5, 1, 24, 4, 1e-6f, false});
  for (const AttentionShape& shape : shapes) {
    const AttentionCase test(shape, 80);
    const auto whole = test.run(*backend(shape, 1), {80});
    for (const int threads : {2, 4, 7, 19}) {
      const auto cut = test.run(*backend(shape, threads), steps);
      EXPECT_TRUE(same_bits(cut.out.values, whole.out.values)) << shape.heads << ", " << threads;
      EXPECT_TRUE(same_bits(cut.cache, whole.cache)) << shape.heads << ", " << threads;
    }
  }
}

TEST_P(AttentionTest, slices_of_two_and_three_segments_have_the_same_bits) {
  for (const AttentionShape& shape :
       {AttentionShape{2, 1, 16, 4, 1e-6f}, {1, 1, 7, 2, 1e-6f}, {16, 1, 24, 4, 1e-6f, false}}) {
    const AttentionCase test(shape, 1016);
    const auto whole = test.run(*backend(shape, 1), {1016});
    for (const int threads : {5, 14}) {
      // Calls whose first rows do not see the segment that the last ones are in; tiles none of whose do.
      const auto cut = test.run(*backend(shape, threads), {501, 2, 3, 1, 498, 2, 3, 4, 1, 1});
      EXPECT_TRUE(same_bits(cut.out.values, whole.out.values)) << shape.heads << ", " << threads;
    }
  }
}

TEST_P(AttentionTest, slices_are_no_numbers_where_the_whole_is_none) {
  const AttentionShape shape = {4, 2, 32, 8, 1e-6f};
  AttentionCase test(shape, 80);
  test.v.rows.row(70)[40] = NAN;
  const auto whole = test.run(*backend(shape, 1), {80});
  const auto cut = test.run(*backend(shape, 9), {78, 1, 1});
  for (size_t i = 0; i < whole.out.values.size(); ++i) {
    ASSERT_EQ(std::isnan(whole.out.values[i]), std::isnan(cut.out.values[i])) << i;
  }
  EXPECT_TRUE(std::isnan(cut.out.rows.row(79)[3 * 32 + 8]));
  EXPECT_FALSE(std::isnan(cut.out.rows.row(79)[8]));
}

AttentionCase in_codes(const AttentionShape& shape, int64_t context) {
  AttentionCase test(shape, context);
  test.form = KvForm::kCodes8;
  return test;
}

TEST_P(AttentionTest, codes_match_the_reference_and_differ_from_floats) {
  ReferenceBackend reference;
  for (const AttentionShape& shape : kAttentionShapes) {
    const AttentionCase test = in_codes(shape, 45);
    const auto actual = test.run(*backend(shape), {45});
    const auto expected = test.run(reference, {45});
    const double tolerance = 0x1p-24 * 40 * shape.head_dim;
    expect_near(actual.out.rows, expected.out.rows, tolerance);
    const auto exact = AttentionCase(shape, 45).run(*backend(shape), {45});
    EXPECT_FALSE(same_bits(actual.out.values, exact.out.values));
    // A position that is not there is not written: what a page has there is still what it had.
    const int64_t row = kv_row_floats(test.form, shape.head_dim);
    const int64_t first_page = std::ssize(actual.cache) - 2 * (test.kGap + test.part_floats());
    for (const int64_t begin : {test.kGap, 2 * test.kGap + test.part_floats()}) {
      const int64_t behind = first_page + begin + 45 * row;
      for (int64_t i = behind; i < behind + (kKvPagePositions - 45) * row; ++i) {
        ASSERT_TRUE(std::isnan(actual.cache[static_cast<size_t>(i)])) << i;
      }
    }
  }
}

TEST_P(AttentionTest, codes_have_the_same_bits_in_any_chunks_on_any_number_of_threads) {
  for (const AttentionShape& shape : kAttentionShapes) {
    const AttentionCase test = in_codes(shape, 13);
    const auto whole = test.run(*backend(shape), {13});
    for (const auto& chunks : std::vector<std::vector<int64_t>>{
             {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {12, 1}, {2, 3, 8}}) {
      const auto cut = test.run(*backend(shape, 3), chunks);
      EXPECT_TRUE(same_bits(cut.out.values, whole.out.values)) << shape.heads;
      EXPECT_TRUE(same_bits(cut.cache, whole.cache)) << shape.heads;
    }
  }
  const AttentionShape shape = {2, 1, 16, 4, 1e-6f};
  const AttentionCase test = in_codes(shape, 1100);
  const auto whole = test.run(*backend(shape, 1), {1100});
  std::vector<int64_t> steps = {1020, 3, 1, 2, 4};
  while (steps.size() < 75) steps.push_back(1);
  const auto cut = test.run(*backend(shape, 5), steps);
  EXPECT_TRUE(same_bits(cut.out.values, whole.out.values));
}

TEST_P(AttentionTest, a_value_that_is_no_number_is_none_for_all_that_see_its_position) {
  const AttentionShape shape = {4, 2, 32, 8, 1e-6f};
  for (const float bad : {NAN, INFINITY}) {
    AttentionCase test = in_codes(shape, 20);
    test.v.rows.row(7)[3] = bad;  // of kv head 0, which heads 0 and 1 use
    const auto outcome = test.run(*backend(shape), {20});
    for (int64_t t = 0; t < 20; ++t) {
      for (size_t i = 0; i < 4 * 32; ++i) {
        const bool is_nan = std::isnan(outcome.out.rows.row(t)[i]);
        if (t >= 7 && i < 64) {
          ASSERT_TRUE(is_nan) << t << ", " << i;
        }
        if (i >= 64) {
          ASSERT_FALSE(is_nan) << t << ", " << i;
        }
      }
    }
  }
}

TEST_P(AttentionTest, very_large_scores_do_not_overflow) {
  const AttentionShape shape = {2, 1, 16, 4, 1e-6f};
  AttentionCase test(shape, 600);
  for (float& value : test.q_norm) value *= 1000;
  const auto outcome = test.run(*backend(shape), {600});
  for (const float value : outcome.out.values) ASSERT_TRUE(std::isfinite(value));
}

const auto kName = [](const auto& test) { return test.param; };
INSTANTIATE_TEST_SUITE_P(Targets, DeltaNetTest, testing::ValuesIn(CpuBackend::targets()), kName);
INSTANTIATE_TEST_SUITE_P(Targets, AttentionTest, testing::ValuesIn(CpuBackend::targets()), kName);

}  // namespace
}  // namespace penstock
