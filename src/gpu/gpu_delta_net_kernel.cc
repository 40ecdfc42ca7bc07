#include "gpu/gpu_delta_net_kernel.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/check.h"
#include "compute/exact_math.h"
#include "gpu/gpu_buffer.h"

namespace penstock {
namespace {

// As shaders/delta_net.comp has them.
struct OpArguments {
  uint64_t qkv, z, b, a, result, weights, before, after, ahead, journal, lost;
  uint32_t rows, heads, memory, strides, eps, query_scale, width_reciprocal, unused;
};

// As shaders/delta_net_ends.comp has them.
struct EndsArguments {
  uint64_t qkv, z, b, a, result, weights, before, after, between, lost;
  uint32_t rows, heads, strides, eps, query_scale, width_reciprocal;
};

// As shaders/delta_rule.comp has them.
struct RuleArguments {
  uint64_t between, before, after;
  uint32_t rows, heads;
};
constexpr int64_t kRuleColumns = 16;  // of a group of threads
constexpr int64_t kPretendedColumn = 32;
constexpr int64_t kRuleSharedBytes = 16384;  // as every device has (gpu_requirements.cc)

struct FusedArguments {
  uint64_t inputs, results;
  uint32_t count, unused;
};

constexpr int kLeastThreads = 16, kMostThreads = 256;  // a column of a value head each
constexpr int64_t kLookedAtRows = 4;
constexpr int64_t kFusedInputs = int64_t{1} << 14;

uint32_t bits_of(float value) {
  return std::bit_cast<uint32_t>(value);
}

// What the arguments of every kernel have of a shape.
struct ShapeWords {
  uint32_t heads, strides, eps, query_scale, width_reciprocal;

  explicit ShapeWords(const DeltaNetShape& shape)
      : heads(static_cast<uint32_t>(shape.key_heads) | static_cast<uint32_t>(shape.value_heads)
                                                           << 16),
        strides(static_cast<uint32_t>(shape.value_heads) |
                static_cast<uint32_t>(shape.value_heads * shape.value_dim) << 16),
        eps(bits_of(shape.rms_norm_eps)),
        query_scale(bits_of(1.0f / std::sqrt(static_cast<float>(shape.key_dim)))),
        width_reciprocal(bits_of(1.0f / static_cast<float>(shape.value_dim))) {}
};

bool is_tiny(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL;
}

// Sizes of every exponent, and sums that nearly cancel.
std::vector<float> fused_inputs(int64_t count) {
  std::mt19937 engine(5);
  const auto any = [&] {
    const auto bits = static_cast<uint32_t>(engine());
    return std::bit_cast<float>((bits & 0x7f800000u) == 0x7f800000u ? bits ^ 0x40000000u : bits);
  };
  std::vector<float> inputs;
  for (int64_t i = 0; i < count; ++i) {
    const float x = any(), y = i % 4 == 1 ? std::ldexp(any(), -60) : any();
    float z = any();
    if (i % 4 == 2) z = -(x * y);
    if (i % 4 == 3) z = std::ldexp(x * y, static_cast<int>(i / 4 % 61) - 30);
    for (const float value : {x, y, std::isfinite(z) ? z : 1.0f}) inputs.push_back(value);
  }
  return inputs;
}

}  // namespace

int64_t delta_net_weight_floats(const DeltaNetShape& shape) {
  return shape.conv_channels() * shape.conv_kernel + 2LL * shape.value_heads + shape.value_dim;
}

int64_t delta_net_journal_floats(const DeltaNetShape& shape) {
  return shape.conv_channels() + 2LL * shape.value_heads;
}

int64_t delta_net_between_floats(const DeltaNetShape& shape) {
  return shape.key_heads * (2LL * shape.key_dim + 1) + shape.value_heads * (2LL + shape.value_dim);
}

Result<bool> has_right_fused(GpuDevice& device, int64_t inputs) {
  const std::vector<float> values = fused_inputs(inputs);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(values));
  const auto take = [&] {
    return device.allocate(bytes.size(), GpuMemoryKind::kShared, "a look at fused sums");
  };
  const GpuBuffer from = PENSTOCK_TRY(take()), to = PENSTOCK_TRY(take());
  PENSTOCK_TRY(device.write(from, 0, bytes));
  const GpuKernel kernel = PENSTOCK_TRY(device.kernel(Shader::kProbeFused, {}));
  GpuCommands commands = PENSTOCK_TRY(device.compute().begin());
  commands.dispatch(kernel,
                    FusedArguments{from.address(), to.address(), static_cast<uint32_t>(inputs), 0},
                    {static_cast<uint32_t>((inputs + 63) / 64), 1});
  PENSTOCK_TRY(device.compute().finish(commands));
  std::vector<float> results(values.size());
  PENSTOCK_TRY(device.read(to, 0, std::as_writable_bytes(std::span(results))));
  for (size_t i = 0; i < results.size(); i += 3) {
    const float x = values[i], y = values[i + 1], z = values[i + 2];
    if (is_tiny(x) || is_tiny(y)) continue;
    const float expected[] = {is_tiny(z) ? 0.0f : exact_fma(x, y, z), x * y, x + y};
    for (size_t k = 0; k < 3; ++k) {
      const bool may_be_lost = std::fabs(expected[k]) < std::numeric_limits<float>::min();
      if (!may_be_lost && bits_of(results[i + k]) != bits_of(expected[k])) return false;
    }
  }
  return true;
}

bool GpuDeltaNetKernel::suits(const DeltaNetShape& shape) {
  const int64_t width = int64_t{shape.value_heads} * shape.value_dim;
  return shape.key_heads > 0 && shape.value_heads % shape.key_heads == 0 &&
         shape.value_dim >= kLeastThreads && shape.value_dim <= kMostThreads &&
         shape.key_dim >= 1 && shape.key_dim <= kMostThreads && shape.conv_kernel >= 1 &&
         shape.value_heads < 1 << 15 && width < 1 << 16 && shape.rms_norm_eps > 1e-20f;
}

bool GpuDeltaNetKernel::suits_many(const DeltaNetShape& shape) {
  const int64_t shared = (kRuleColumns + 4) * (shape.key_dim + 4LL);
  return suits(shape) && shared * static_cast<int64_t>(sizeof(float)) <= kRuleSharedBytes;
}

Result<GpuDeltaNetKernel> GpuDeltaNetKernel::create(GpuDevice& device, const DeltaNetShape& shape,
                                                    DeltaNetSums wanted, bool for_many) {
  PENSTOCK_CHECK(suits(shape));
  const auto compile = [&](DeltaNetSums sums) {
    const uint32_t constants[] = {
        static_cast<uint32_t>(shape.key_dim), static_cast<uint32_t>(shape.value_dim),
        static_cast<uint32_t>(shape.conv_kernel), static_cast<uint32_t>(sums)};
    return device.kernel(Shader::kDeltaNet, constants);
  };
  GpuDeltaNetKernel made;
  made.shape_ = shape;
  made.kernel_ = made.whole_ = PENSTOCK_TRY(compile(DeltaNetSums::kWhole));
  const bool is_own = wanted == DeltaNetSums::kOwn;
  if (is_own && !PENSTOCK_TRY(has_right_fused(device, kFusedInputs))) return made;
  if (wanted != DeltaNetSums::kWhole) made.kernel_ = PENSTOCK_TRY(compile(wanted));
  made.sums_ = wanted;
  if (is_own && !PENSTOCK_TRY(made.agrees(device, Way::kFew))) {
    made.kernel_ = made.whole_;
    made.sums_ = DeltaNetSums::kWhole;
    return made;
  }
  if (!for_many || !suits_many(shape)) return made;
  PENSTOCK_TRY(made.compile_many(device));
  made.has_many_ = !is_own || PENSTOCK_TRY(made.agrees(device, Way::kMany));
  return made;
}

Result<void> GpuDeltaNetKernel::compile_many(GpuDevice& device) {
  const auto key_dim = static_cast<uint32_t>(shape_.key_dim);
  const auto value_dim = static_cast<uint32_t>(shape_.value_dim);
  const auto compile = [&](DeltaNetSums sums, bool is_last) {
    const uint32_t constants[] = {key_dim, value_dim, static_cast<uint32_t>(shape_.conv_kernel),
                                  static_cast<uint32_t>(sums), is_last ? 1u : 0u};
    return device.kernel(Shader::kDeltaNetEnds, constants);
  };
  keys_ = whole_keys_ = PENSTOCK_TRY(compile(DeltaNetSums::kWhole, false));
  norm_ = whole_norm_ = PENSTOCK_TRY(compile(DeltaNetSums::kWhole, true));
  if (sums_ != DeltaNetSums::kWhole) {
    keys_ = PENSTOCK_TRY(compile(sums_, false));
    norm_ = PENSTOCK_TRY(compile(sums_, true));
  }
  // For tests of that, heads small enough for Mesa's compiler.
  const bool pretends = sums_ == DeltaNetSums::kPretended && shape_.key_dim <= kPretendedColumn;
  const bool in_registers = sums_ == DeltaNetSums::kOwn || pretends;
  const uint32_t of_rule[] = {key_dim, value_dim, static_cast<uint32_t>(sums_),
                              in_registers ? 1u : 0u};
  rule_ = PENSTOCK_TRY(device.kernel(Shader::kDeltaRule, of_rule));
  return {};
}

void GpuDeltaNetKernel::run_many(GpuCommands& commands, const ManyCall& call) const {
  PENSTOCK_DCHECK(call.rows >= 1);
  const auto heads = static_cast<uint32_t>(shape_.value_heads);
  const ShapeWords words(shape_);
  dispatch_ends(commands, keys_, whole_keys_, call);
  commands.barrier();
  const auto strips = static_cast<uint32_t>((shape_.value_dim + kRuleColumns - 1) / kRuleColumns);
  commands.dispatch(rule_,
                    RuleArguments{.between = call.between,
                                  .before = call.memory_before,
                                  .after = call.memory_after,
                                  .rows = static_cast<uint32_t>(call.rows),
                                  .heads = words.heads},
                    {heads, strips});
  commands.barrier();
  dispatch_ends(commands, norm_, whole_norm_, call);
}

void GpuDeltaNetKernel::dispatch_ends(GpuCommands& commands, const GpuKernel& own,
                                      const GpuKernel& whole, const ManyCall& call) const {
  const auto heads = static_cast<uint32_t>(shape_.value_heads);
  const auto rows = static_cast<uint32_t>(call.rows);
  const ShapeWords words(shape_);
  EndsArguments arguments = {.qkv = call.qkv,
                             .z = call.z,
                             .b = call.b,
                             .a = call.a,
                             .result = call.result,
                             .weights = call.weights,
                             .before = call.history_before,
                             .after = call.history_after,
                             .between = call.between,
                             .lost = call.lost,
                             .rows = rows,
                             .heads = words.heads,
                             .strides = words.strides,
                             .eps = words.eps,
                             .query_scale = words.query_scale,
                             .width_reciprocal = words.width_reciprocal};
  if (sums_ == DeltaNetSums::kWhole) {
    arguments.lost = 0;  // no other kernel has written it
  } else {
    commands.dispatch(own, arguments, {heads, rows});
    commands.barrier();
  }
  commands.dispatch(whole, arguments, {heads, rows});
}

void GpuDeltaNetKernel::run(GpuCommands& commands, std::span<const Call> calls) const {
  if (sums_ != DeltaNetSums::kWhole) {
    for (const Call& call : calls) dispatch(commands, kernel_, call);
    commands.barrier();
  }
  for (Call call : calls) {
    if (sums_ == DeltaNetSums::kWhole) call.lost = 0;  // no other kernel has written it
    dispatch(commands, whole_, call);
  }
}

void GpuDeltaNetKernel::dispatch(GpuCommands& commands, const GpuKernel& kernel,
                                 const Call& call) const {
  const auto heads = static_cast<uint32_t>(shape_.value_heads);
  const ShapeWords words(shape_);
  PENSTOCK_DCHECK(call.rows >= (call.ahead == 0 ? 1 : 2) && call.before != call.after);
  commands.dispatch(kernel,
                    OpArguments{.qkv = call.qkv,
                                .z = call.z,
                                .b = call.b,
                                .a = call.a,
                                .result = call.result,
                                .weights = call.weights,
                                .before = call.before,
                                .after = call.after,
                                .ahead = call.ahead,
                                .journal = call.journal,
                                .lost = call.lost,
                                .rows = static_cast<uint32_t>(call.rows),
                                .heads = words.heads,
                                .memory = static_cast<uint32_t>(call.memory_at),
                                .strides = words.strides,
                                .eps = words.eps,
                                .query_scale = words.query_scale,
                                .width_reciprocal = words.width_reciprocal,
                                .unused = 0},
                    {heads, 1});
}

// Whether a way gives what the kernel of whole numbers gives. With tiny states the delta rule is done again in
// place, with tiny inputs most heads are done twice.
Result<bool> GpuDeltaNetKernel::agrees(GpuDevice& device, Way way) const {
  for (const Tiny tiny : {Tiny::kNothing, Tiny::kStates, Tiny::kInputs}) {
    const std::vector<float> expected = PENSTOCK_TRY(look_at(device, Way::kWhole, tiny));
    const std::vector<float> found = PENSTOCK_TRY(look_at(device, way, tiny));
    // Of many rows nothing is kept in a journal.
    const auto kept = static_cast<size_t>(
        way == Way::kMany ? kLookedAtRows * delta_net_journal_floats(shape_) : 0);
    const size_t bytes = (expected.size() - kept) * sizeof(float);
    if (std::memcmp(expected.data() + kept, found.data() + kept, bytes) != 0) return false;
  }
  return true;
}

// Of a few rows: what was kept of the inputs, results, states.
Result<std::vector<float>> GpuDeltaNetKernel::look_at(GpuDevice& device, Way way, Tiny tiny) const {
  constexpr int64_t kRows = kLookedAtRows;
  const DeltaNetShape& shape = shape_;
  const int64_t width = int64_t{shape.value_heads} * shape.value_dim;
  const int64_t history = (shape.conv_kernel - 1) * shape.conv_channels();
  const int64_t state = history + width * shape.key_dim;
  std::mt19937 engine(9);
  std::normal_distribution<float> normal;
  std::vector<float> inputs;
  const auto append = [&](int64_t count, bool may_be_tiny) {
    const auto begin = std::ssize(inputs);
    for (int64_t i = 0; i < count; ++i) {
      inputs.push_back(std::ldexp(normal(engine), may_be_tiny && i % 3 == 0 ? -126 : 0));
    }
    return begin * static_cast<int64_t>(sizeof(float));
  };
  const bool has_tiny_inputs = tiny == Tiny::kInputs;
  const int64_t qkv = append(kRows * shape.conv_channels(), has_tiny_inputs);
  const int64_t z = append(kRows * width, false);
  const int64_t of_b = append(kRows * shape.value_heads, false);
  const int64_t of_a = append(kRows * shape.value_heads, false);
  const int64_t weights = append(delta_net_weight_floats(shape), false);
  const int64_t before = append(history, has_tiny_inputs);
  append(state - history, tiny != Tiny::kNothing);
  const int64_t mixed = kRows * width, journal = kRows * delta_net_journal_floats(shape);
  const auto results = static_cast<size_t>(journal + mixed + state);
  const int64_t lost = kRows * shape.value_heads;  // behind these
  const int64_t between = kRows * delta_net_between_floats(shape);
  const GpuBuffer from = PENSTOCK_TRY(device.allocate(
      inputs.size() * sizeof(float), GpuMemoryKind::kShared, "a look at the delta-net's kernels"));
  PENSTOCK_TRY(device.write(from, 0, std::as_bytes(std::span(inputs))));
  const GpuBuffer to =
      PENSTOCK_TRY(device.allocate(results * sizeof(float) + gpu_float_bytes(lost + between),
                                   GpuMemoryKind::kShared, "a look at the delta-net's kernels"));
  const auto at = [](const GpuBuffer& buffer, int64_t byte) {
    return buffer.address() + static_cast<uint64_t>(byte);
  };
  constexpr int64_t kFloat = sizeof(float);
  const uint64_t after = at(to, (journal + mixed) * kFloat);
  const uint64_t behind = at(to, static_cast<int64_t>(results) * kFloat);
  GpuCommands commands = PENSTOCK_TRY(device.compute().begin());
  if (way == Way::kMany) {
    run_many(commands, {.qkv = at(from, qkv),
                        .z = at(from, z),
                        .b = at(from, of_b),
                        .a = at(from, of_a),
                        .result = at(to, journal * kFloat),
                        .weights = at(from, weights),
                        .history_before = at(from, before),
                        .history_after = after,
                        .memory_before = at(from, before + history * kFloat),
                        .memory_after = after + gpu_float_bytes(history),
                        .between = behind + gpu_float_bytes(lost),
                        .lost = behind,
                        .rows = kRows});
  } else {
    const Call call = {.qkv = at(from, qkv),
                       .z = at(from, z),
                       .b = at(from, of_b),
                       .a = at(from, of_a),
                       .result = at(to, journal * kFloat),
                       .weights = at(from, weights),
                       .before = at(from, before),
                       .after = after,
                       .journal = at(to, 0),
                       .lost = behind,
                       .rows = kRows,
                       .memory_at = history};
    if (way == Way::kWhole) {
      Call whole = call;
      whole.lost = 0;
      dispatch(commands, whole_, whole);
    } else {
      run(commands, {&call, 1});
    }
  }
  PENSTOCK_TRY(device.compute().finish(commands));
  std::vector<float> found(results);
  PENSTOCK_TRY(device.read(to, 0, std::as_writable_bytes(std::span(found))));
  return found;
}

}  // namespace penstock
