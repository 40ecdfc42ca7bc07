// Delta-net mixers on the software device: outputs and states with the bits of the CPU's, whatever lies
// where, and whatever becomes of the device.
#include "gpu/gpu_delta_nets.h"

#include <algorithm>
#include <array>
#include <optional>
#include <random>

#include "compute/cpu/cpu_backend.h"
#include "compute/test_values.h"
#include "gpu/gpu_backend.h"
#include "gpu/test_gpu.h"

namespace penstock {
namespace {

using test::GpuTest;
using test::kHidden;
using test::OwnedMatrix;
using test::OwnedRows;
using test::same_bits;
using test::Values;

constexpr int64_t kPassRowsMax = 14, kFewRows = 8, kWaveRows = 5;
constexpr int kLayers = 2;
constexpr int kSequences = 3;

struct DeltaNetTest {
  DeltaNetShape shape;
  DType inputs, gates, output;  // types of its matrices
};

// Four value heads for each key head; columns that are no power of two; more columns than chains of a sum.
const DeltaNetTest kDeltaNetTests[] = {{{.key_heads = 2,
                                         .value_heads = 8,
                                         .key_dim = 24,
                                         .value_dim = 24,
                                         .conv_kernel = 4,
                                         .rms_norm_eps = 1e-6f},
                                        DType::kQ8,
                                        DType::kBF16,
                                        DType::kQ4},
                                       {{.key_heads = 3,
                                         .value_heads = 3,
                                         .key_dim = 72,
                                         .value_dim = 64,
                                         .conv_kernel = 3,
                                         .rms_norm_eps = 1e-5f},
                                        DType::kQ4,
                                        DType::kQ4,
                                        DType::kQ2},
                                       {{.key_heads = 1,
                                         .value_heads = 2,
                                         .key_dim = 128,
                                         .value_dim = 96,
                                         .conv_kernel = 4,
                                         .rms_norm_eps = 1e-6f},
                                        DType::kQ3,
                                        DType::kQ8,
                                        DType::kQ3}};

struct LayerWeights {
  OwnedMatrix qkv, z, b, a, output;
  std::vector<float> conv, decay, dt_bias, norm;

  // size: of convolutions and decays.
  LayerWeights(Values& source, const DeltaNetTest& test, float size)
      : qkv(test.inputs, source, test.shape.conv_channels(), kHidden),
        z(test.inputs, source, width_of(test.shape), kHidden),
        b(test.gates, source, test.shape.value_heads, kHidden),
        a(test.gates, source, test.shape.value_heads, kHidden),
        output(test.output, source, kHidden, width_of(test.shape)),
        conv(source.normal(test.shape.conv_channels() * test.shape.conv_kernel, size)),
        decay(source.normal(test.shape.value_heads)),
        dt_bias(source.normal(test.shape.value_heads)),
        norm(source.normal(test.shape.value_dim)) {
    for (float& value : decay) value = -std::fabs(value) / size;
  }
  static int64_t width_of(const DeltaNetShape& shape) {
    return int64_t{shape.value_heads} * shape.value_dim;
  }
  DeltaNetWeights weights() const {
    return {conv.data(), decay.data(), dt_bias.data(), norm.data()};
  }
  std::vector<Matrix> matrices() const {
    return {qkv.matrix, z.matrix, b.matrix, a.matrix, output.matrix};
  }
};

// States of all layers and sequences: of each two to take turns, and one for a trial.
struct States {
  const DeltaNetShape& shape;
  std::vector<float> values;

  explicit States(const DeltaNetShape& of) : shape(of) {
    values.resize(static_cast<size_t>(kLayers * kSequences * 3 * floats()));
  }
  int64_t history() const { return (shape.conv_kernel - 1) * shape.conv_channels(); }
  int64_t floats() const { return history() + LayerWeights::width_of(shape) * shape.key_dim; }
  DeltaNetState any(int layer, int number) { return at(layer, number / 3, number % 3); }
  DeltaNetState at(int layer, int sequence, int which) {
    float* begin = values.data() +
                   static_cast<int64_t>((layer * kSequences + sequence) * 3 + which) * floats();
    return {begin, begin + history()};
  }
  Rows rows(int layer, int sequence, int which) {
    return {at(layer, sequence, which).conv_history, 1, floats(), floats()};
  }
  Rows all() {
    const auto count = std::ssize(values);
    return {values.data(), 1, count, count};
  }
};

// Of a pass: its rows, by sequence, and whether the last row of each is on trial.
struct Pass {
  std::vector<int64_t> rows;
  bool is_on_trial = false;
  // By sequence, which of all states are read and written; empty: those of its own, in turns.
  std::vector<int> from = {}, to = {};
};

class GpuDeltaNetsTest : public GpuTest, public testing::WithParamInterface<size_t> {
 protected:
  const DeltaNetTest& test() const { return kDeltaNetTests[GetParam()]; }
  const DeltaNetShape& shape() const { return test().shape; }

  std::unique_ptr<CpuBackend> make_cpu() const {
    const int64_t width = std::max(shape().conv_channels(), LayerWeights::width_of(shape()));
    return CpuBackend::create(2, {.tokens = kPassRowsMax,
                                  .hidden_size = kHidden,
                                  .width = std::max(width, kHidden),
                                  .top_k = 1,
                                  .expert_width = 64,
                                  .delta_net = shape()})
        .value();
  }
  GpuTrunk trunk_of(std::span<const LayerWeights> layers, bool with_gates) const {
    GpuTrunk trunk = {.rows = 32,
                      .columns = 1024,
                      .results = 32 * 1024,
                      .few_rows = kFewRows,
                      .many = SideRule::kDevice};
    for (const LayerWeights& layer : layers) {
      for (const Matrix& matrix : layer.matrices()) {
        const bool is_gate = matrix.rows == shape().value_heads;
        if (has_gpu_product(matrix) && (with_gates || !is_gate)) trunk.matrices.push_back(matrix);
      }
    }
    trunk.delta_nets = {.shape = shape(),
                        .layers = kLayers,
                        .rows = kFewRows,
                        .wave_rows = wave_rows_,
                        .states = 3 * kSequences,
                        .hidden_size = kHidden,
                        .sums = sums_};
    return trunk;
  }
  std::unique_ptr<GpuBackend> make(GpuDevice& device, GpuUse& use, Backend& cpu,
                                   const GpuTrunk& trunk) {
    auto backend = GpuBackend::create(device, use, cpu, trunk).value();
    backend->load();
    return backend;
  }

  // What a pass through all layers gives, each of which has the same input; states go from `turn` to its
  // other.
  std::vector<float> run(Backend& ops, std::span<const LayerWeights> layers, States& states,
                         const OwnedRows& x, const Pass& pass, int turn) {
    std::vector<float> outputs;
    const int64_t n = x.rows.count;
    for (int layer = 0; layer < kLayers; ++layer) {
      const LayerWeights& weights = layers[static_cast<size_t>(layer)];
      const DeltaNetWeights op_weights = weights.weights();
      const OwnedRows qkv(n, shape().conv_channels()), z(n, LayerWeights::width_of(shape())),
          b(n, shape().value_heads), a(n, shape().value_heads),
          mixed(n, LayerWeights::width_of(shape())), y(n, kHidden);
      std::vector<DeltaNetCall> calls;
      int64_t first = 0;
      for (int s = 0; s < static_cast<int>(pass.rows.size()); ++s) {
        const auto i = static_cast<size_t>(s);
        const int64_t count = pass.rows[i];
        const bool is_chosen = !pass.from.empty();
        calls.push_back(
            {.shape = shape(),
             .weights = op_weights,
             .before = is_chosen ? states.any(layer, pass.from[i]) : states.at(layer, s, turn % 2),
             .after =
                 is_chosen ? states.any(layer, pass.to[i]) : states.at(layer, s, (turn + 1) % 2),
             .ahead = pass.is_on_trial ? states.at(layer, s, 2) : DeltaNetState(),
             .qkv = qkv.rows.slice(first, count),
             .z = z.rows.slice(first, count),
             .b = b.rows.slice(first, count),
             .a = a.rows.slice(first, count),
             .out = mixed.rows.slice(first, count)});
        first += count;
      }
      ops.delta_net_block({.x = x.rows,
                           .qkv = {weights.qkv.matrix, nullptr, qkv.rows},
                           .z = {weights.z.matrix, nullptr, z.rows},
                           .b = {weights.b.matrix, nullptr, b.rows},
                           .a = {weights.a.matrix, nullptr, a.rows},
                           .calls = calls,
                           .mixed = mixed.rows,
                           .output = {weights.output.matrix, nullptr, y.rows}});
      for (int64_t t = 0; t < n; ++t) {
        outputs.insert(outputs.end(), y.rows.row(t).begin(), y.rows.row(t).end());
      }
    }
    return outputs;
  }
  bool is_there(const Pass& pass) const {
    return rows_of(pass) <= kFewRows || (wave_rows_ > 0 && !pass.is_on_trial);
  }
  static int64_t rows_of(const Pass& pass) {
    int64_t rows = 0;
    for (const int64_t count : pass.rows) rows += count;
    return rows;
  }
  // As the host sees them.
  static std::vector<float> seen(Backend& ops, States& states) {
    std::vector<float> values(states.values.size());
    EXPECT_TRUE(ops.read_back(states.all(), values).has_value());
    return values;
  }

  DeltaNetSums sums_ = DeltaNetSums::kWhole;
  int64_t wave_rows_ =
      0;  // kWaveRows: with kernels for many rows, which Mesa's compiler takes long for
  GpuUse use_{[this](const std::string& line) { lines_.push_back(line); }};
  std::vector<std::string> lines_;
};

INSTANTIATE_TEST_SUITE_P(Shapes, GpuDeltaNetsTest, testing::Range<size_t>(0, 3));
using GpuDeltaNetsOfOne = GpuDeltaNetsTest;
INSTANTIATE_TEST_SUITE_P(Shapes, GpuDeltaNetsOfOne, testing::Values<size_t>(0));

// Above kFewRows in waves, but where rows are on trial: those are the processors'.
const Pass kPasses[] = {{{1}},       {{1}},          {{5}},    {{1, 1, 1}}, {{2, 4, 2}},
                        {{2}, true}, {{2, 3}, true}, {{12}},   {{1, 11}},   {{4, 7}, true},
                        {{8}},       {{3, 10, 1}},   {{1, 1}}, {{14}},      {{10, 1}}};

TEST_P(GpuDeltaNetsTest, have_the_bits_of_the_cpu_for_any_rows_and_sequences) {
  Values source(41);
  const LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
  const auto cpu = make_cpu(), inner = make_cpu();
  for (const bool with_gates : {true, false}) {
    // That takes Mesa's compiler long.
    const bool pretends = !with_gates && GetParam() == 1;
    wave_rows_ = with_gates || pretends ? kWaveRows : 0;
    sums_ = pretends ? DeltaNetSums::kPretended : DeltaNetSums::kWhole;
    const auto backend = make(*device_, use_, *inner, trunk_of(layers, with_gates));
    States expected(shape()), found(shape());
    uint64_t blocks = 0;
    int turn = 0;
    for (const Pass& pass : kPasses) {
      const OwnedRows x(source, rows_of(pass), kHidden);
      const std::vector<float> on_cpu = run(*cpu, layers, expected, x, pass, turn);
      EXPECT_TRUE(same_bits(run(*backend, layers, found, x, pass, turn), on_cpu)) << turn;
      EXPECT_TRUE(turn % 3 == 1 || same_bits(seen(*backend, found), expected.values)) << turn;
      if (is_there(pass)) blocks += kLayers;
      EXPECT_EQ(backend->report().delta_nets, blocks) << turn;
      ++turn;
    }
    EXPECT_TRUE(same_bits(seen(*backend, found), expected.values));
  }
  EXPECT_TRUE(lines_.empty());
}

// Numbers so small that a device would lose them, and states that are gone after a row.
TEST_P(GpuDeltaNetsTest, keep_the_smallest_numbers) {
  Values source(42);
  for (const float size : {1e-19f, 1e-30f, 1e-38f}) {
    sums_ = size == 1e-30f ? DeltaNetSums::kWhole : DeltaNetSums::kPretended;
    wave_rows_ = size == 1e-38f ? kWaveRows : 0;
    const LayerWeights layers[] = {{source, test(), size}, {source, test(), size}};
    const auto cpu = make_cpu(), inner = make_cpu();
    const auto backend = make(*device_, use_, *inner, trunk_of(layers, true));
    States expected(shape()), found(shape());
    const std::vector<float> start = source.normal(std::ssize(expected.values), 1e-38f);
    found.values = expected.values = start;
    for (int turn = 0; turn < 5; ++turn) {
      const Pass pass = {{turn == 4 && wave_rows_ > 0 ? 13 : 1 + turn}};
      const OwnedRows x(source, rows_of(pass), kHidden, turn % 2 == 0 ? 1e-12f : 1.0f);
      const std::vector<float> on_cpu = run(*cpu, layers, expected, x, pass, turn);
      EXPECT_TRUE(same_bits(run(*backend, layers, found, x, pass, turn), on_cpu)) << size;
      EXPECT_TRUE(same_bits(seen(*backend, found), expected.values)) << size;
    }
    EXPECT_EQ(backend->report().delta_nets, 5u * kLayers);
  }
}

// One head that would lose numbers beside others that do not, of one sequence beside others, with rows on trial;
// and states of which some numbers are subnormal, which the delta rule itself does once more.
TEST_P(GpuDeltaNetsOfOne, do_heads_once_more_that_may_have_lost_a_number) {
  Values source(48);
  sums_ = DeltaNetSums::kPretended;
  wave_rows_ = kWaveRows;
  LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
  // Queries and keys of the last key head are made of the rows before alone, and are small; where these rows
  // were small as well, subnormal. Such a sequence has a state so large that they are seen through it.
  constexpr int kSmall = 0;
  std::ranges::fill(layers[0].dt_bias, -60.0f);  // nothing is forgotten
  for (const int64_t key_head : {shape().key_heads - 1, 2 * shape().key_heads - 1}) {
    for (int64_t i = 0; i < shape().key_dim; ++i) {
      const int64_t channel = key_head * shape().key_dim + i;
      float* taps = layers[0].conv.data() + channel * shape().conv_kernel;
      for (int tap = 0; tap < shape().conv_kernel; ++tap) taps[tap] *= 1e-10f;
      taps[shape().conv_kernel - 1] = 0;
    }
  }
  for (const bool is_many : {false, true}) {
    const auto cpu = make_cpu(), inner = make_cpu();
    const auto backend = make(*device_, use_, *inner, trunk_of(layers, true));
    States expected(shape()), found(shape());
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int sequence = 0; sequence < kSequences; ++sequence) {
        const DeltaNetState state = expected.at(layer, sequence, 0);
        const bool is_small = layer == 0 && sequence == kSmall;
        const std::vector<float> history = source.normal(expected.history(), is_small ? 1e-28f : 1);
        std::copy(history.begin(), history.end(), state.conv_history);
        const int64_t count = expected.floats() - expected.history();
        const std::vector<float> memory = source.normal(count);
        std::copy(memory.begin(), memory.end(), state.memory);
        const int64_t others = count - count / shape().key_heads;
        for (int64_t i = others; is_small && i < count; ++i) state.memory[i] *= 1e30f;
        for (int64_t i = 0; i < others; i += 3) state.memory[i] = 3e-39f;
      }
    }
    found.values = expected.values;
    int turn = 0;
    for (const Pass& pass : {is_many ? Pass{{1, 9, 4}} : Pass{{1, 4, 2}}, Pass{{2, 3}, true},
                             Pass{{1, 1, 1}}, Pass{{1}}}) {
      const OwnedRows x(source, rows_of(pass), kHidden);
      const std::vector<float> on_cpu = run(*cpu, layers, expected, x, pass, turn);
      EXPECT_TRUE(std::ranges::all_of(on_cpu, [](float y) { return std::isfinite(y); })) << turn;
      EXPECT_TRUE(same_bits(run(*backend, layers, found, x, pass, turn), on_cpu)) << turn;
      EXPECT_TRUE(same_bits(seen(*backend, found), expected.values)) << turn;
      if (turn++ > 0) continue;
      cpu->clear(expected.rows(0, kSmall, 1));  // larger keys would be too much for it
      backend->clear(found.rows(0, kSmall, 1));
    }
    EXPECT_EQ(backend->report().delta_nets, 4u * kLayers);
  }
}

// The host clears a state, writes one, copies one over another: in the next row that counts.
TEST_P(GpuDeltaNetsOfOne, see_what_the_host_has_done_to_states) {
  Values source(43);
  const LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
  const auto cpu = make_cpu(), inner = make_cpu();
  const auto backend = make(*device_, use_, *inner, trunk_of(layers, true));
  States expected(shape()), found(shape());
  const Pass pass = {{1, 1}};
  const auto both = [&](const std::function<void(Backend&, States&)>& change) {
    change(*cpu, expected);
    change(*backend, found);
  };
  const std::vector<float> other = source.normal(expected.floats());
  for (int turn = 0; turn < 12; ++turn) {
    const OwnedRows x(source, 2, kHidden);
    const std::vector<float> on_cpu = run(*cpu, layers, expected, x, pass, turn);
    EXPECT_TRUE(same_bits(run(*backend, layers, found, x, pass, turn), on_cpu)) << turn;
    const int next = (turn + 1) % 2;
    both([&](Backend& ops, States& states) {
      if (turn % 4 == 0) ops.clear(states.rows(1, 0, next));
      if (turn % 4 == 1) ops.upload(other, states.rows(0, 1, next));
      if (turn % 4 == 2) ops.copy(states.rows(0, 1, next), states.rows(1, 0, next));
    });
  }
  EXPECT_TRUE(same_bits(seen(*backend, found), expected.values));
  EXPECT_EQ(backend->report().delta_nets, 12u * kLayers);
}

TEST_P(GpuDeltaNetsOfOne, leave_to_the_processors_what_has_no_room) {
  Values source(44);
  const LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
  const auto cpu = make_cpu(), inner = make_cpu();
  GpuTrunk trunk = trunk_of(layers, true);
  trunk.delta_nets.states = 4;
  trunk.delta_nets.layers = 1;
  const auto backend = make(*device_, use_, *inner, trunk);
  States expected(shape()), found(shape());
  int turn = 0;
  for (const Pass& pass : {Pass{{1, 1}}, Pass{{1, 1, 1}}, Pass{{2, 2}, true}, Pass{{3}, true}}) {
    const OwnedRows x(source, rows_of(pass), kHidden);
    const std::vector<float> on_cpu = run(*cpu, layers, expected, x, pass, turn);
    EXPECT_TRUE(same_bits(run(*backend, layers, found, x, pass, turn), on_cpu)) << turn;
    ++turn;
  }
  EXPECT_EQ(backend->report().delta_nets, 2u);  // of the first layer, with two sequences and one
  EXPECT_TRUE(same_bits(seen(*backend, found), expected.values));
}

// Wherever it is lost, in a block or between two, with states on their way back or not: a line, and the
// answer goes on.
TEST_P(GpuDeltaNetsOfOne, a_device_that_is_lost_takes_no_state_along) {
  Values source(45);
  const LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
  std::vector<GpuFaults> faults;
  for (int64_t n = 9; n < 34; n += 5) faults.push_back({.submits_before_loss = n});
  for (int64_t n = 10; n < 33; n += 7) faults.push_back({.waits_before_silence = n});
  int used = 0, lost = 0;
  for (const GpuFaults& fault : faults) {
    lines_.clear();
    GpuUse use([this](const std::string& line) { lines_.push_back(line); });
    const auto device = make_device(fault);
    const auto cpu = make_cpu(), inner = make_cpu();
    const auto backend = make(*device, use, *inner, trunk_of(layers, true));
    States expected(shape()), found(shape());
    for (int turn = 0; turn < 5; ++turn) {
      const Pass pass = turn == 3 ? Pass{{2, 3}, true} : Pass{{1, 2}};
      const OwnedRows x(source, rows_of(pass), kHidden);
      const std::vector<float> on_cpu = run(*cpu, layers, expected, x, pass, turn);
      ASSERT_TRUE(same_bits(run(*backend, layers, found, x, pass, turn), on_cpu)) << turn;
      // What was read is somebody else's now, while what was made of it is on its way back.
      if (turn == 2 || turn == 3) {
        cpu->clear(expected.rows(1, 1, turn % 2));
        backend->clear(found.rows(1, 1, turn % 2));
      }
    }
    ASSERT_TRUE(same_bits(seen(*backend, found), expected.values));
    EXPECT_EQ(lines_.size(), use.is_lost() ? 1u : 0u);
    lost += use.is_lost();
    used += use.is_lost() && backend->report().delta_nets > 0;
  }
  EXPECT_GE(lost, 6);
  EXPECT_GE(used, 3);
}

// With waves under way, or their states on the way back.
TEST_P(GpuDeltaNetsOfOne, a_device_that_is_lost_amid_many_rows_changes_nothing) {
  Values source(46);
  const LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
  wave_rows_ = kWaveRows;
  const Pass passes[] = {{{1, 2}}, {{2, 12}}, {{13}}, {{3}}};
  int lost_amid = 0;
  std::vector<GpuFaults> faults;
  for (int64_t n = 11; n < 28; n += 4) faults.push_back({.submits_before_loss = n});
  for (int64_t n = 14; n < 30; n += 5) faults.push_back({.waits_before_silence = n});
  for (const GpuFaults& fault : faults) {
    GpuUse use([](const std::string&) {});
    const auto device = make_device(fault);
    const auto cpu = make_cpu(), inner = make_cpu();
    const auto backend = make(*device, use, *inner, trunk_of(layers, true));
    States expected(shape()), found(shape());
    for (int turn = 0; turn < static_cast<int>(std::size(passes)); ++turn) {
      const Pass& pass = passes[turn];
      const OwnedRows x(source, rows_of(pass), kHidden);
      const std::vector<float> on_cpu = run(*cpu, layers, expected, x, pass, turn);
      const bool was_lost = use.is_lost();
      ASSERT_TRUE(same_bits(run(*backend, layers, found, x, pass, turn), on_cpu)) << turn;
      ASSERT_TRUE(same_bits(seen(*backend, found), expected.values)) << turn;
      lost_amid += !was_lost && use.is_lost() && rows_of(pass) > kFewRows;
    }
  }
  EXPECT_GE(lost_amid, 5);
}

// Sets of states are kept, taken again, read after others: whatever few slots there are, each is what was
// written last, there or here.
TEST_P(GpuDeltaNetsOfOne, any_states_in_any_order_are_what_was_written_last) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    std::mt19937 random(seed);
    Values source(50 + seed);
    const LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
    const auto cpu = make_cpu(), inner = make_cpu();
    GpuTrunk trunk = trunk_of(layers, true);
    const int sequences = seed == 1 ? 1 : 2;
    trunk.delta_nets.states = seed == 3 ? 5 : 2 * sequences + (seed == 1 ? 1 : 0);
    const auto backend = make(*device_, use_, *inner, trunk);
    States expected(shape()), found(shape());
    const std::vector<float> other = source.normal(expected.floats());
    std::vector<int> numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    for (int turn = 0; turn < 150; ++turn) {
      std::shuffle(numbers.begin(), numbers.begin() + (turn % 3 == 0 ? 9 : 5), random);
      Pass pass;
      for (int s = 0; s < 1 + turn % sequences; ++s) {
        pass.rows.push_back(1 + random() % 3);
        pass.from.push_back(numbers[static_cast<size_t>(2 * s)]);
        pass.to.push_back(numbers[static_cast<size_t>(2 * s + 1)]);
      }
      const OwnedRows x(source, rows_of(pass), kHidden);
      const std::vector<float> on_cpu = run(*cpu, layers, expected, x, pass, turn);
      ASSERT_TRUE(same_bits(run(*backend, layers, found, x, pass, turn), on_cpu))
          << seed << ", " << turn;
      if (turn % 7 != 3) continue;
      const int number = numbers[8];
      cpu->upload(other, expected.rows(1, number / 3, number % 3));
      backend->upload(other, found.rows(1, number / 3, number % 3));
    }
    EXPECT_EQ(backend->report().delta_nets, 150u * kLayers);
    EXPECT_TRUE(same_bits(seen(*backend, found), expected.values));
  }
}

// This device fuses nothing; whole numbers it computes as well as any, but the processors are faster.
TEST_P(GpuDeltaNetsOfOne, are_the_processors_where_a_device_fuses_otherwise) {
  EXPECT_FALSE(has_right_fused(*device_, 4096).value());
  Values source(47);
  const LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
  const auto cpu = make_cpu(), inner = make_cpu();
  sums_ = DeltaNetSums::kOwn;
  const auto backend = make(*device_, use_, *inner, trunk_of(layers, true));
  States expected(shape()), found(shape());
  const OwnedRows x(source, 2, kHidden);
  const std::vector<float> on_cpu = run(*cpu, layers, expected, x, {{2}}, 0);
  EXPECT_TRUE(same_bits(run(*backend, layers, found, x, {{2}}, 0), on_cpu));
  EXPECT_EQ(backend->report().delta_nets, 0u);
  EXPECT_GT(backend->report().products, 0u);
}

TEST_P(GpuDeltaNetsOfOne, take_the_memory_that_they_say) {
  Values source(46);
  wave_rows_ = kWaveRows;
  const LayerWeights layers[] = {{source, test(), 0.5f}, {source, test(), 0.5f}};
  const auto inner = make_cpu();
  const GpuTrunk trunk = trunk_of(layers, true);
  const auto backend = make(*device_, use_, *inner, trunk);
  const GpuBackend::Bytes rows = GpuBackend::bytes_for_rows(trunk);
  const uint64_t all = rows.on_device + rows.on_host + GpuMatrices::bytes_for(trunk.matrices);
  EXPECT_EQ(backend->report().bytes, all);
  EXPECT_LE(device_->allocated_bytes(), all);
  EXPECT_GT(device_->allocated_bytes() + 40 * kGpuRounding, all);
}

}  // namespace
}  // namespace penstock
