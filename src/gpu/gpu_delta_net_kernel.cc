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

struct FusedArguments {
  uint64_t inputs, results;
  uint32_t count, unused;
};

constexpr int kLeastThreads = 16, kMostThreads = 256;  // a column of a value head each
constexpr int64_t kFusedInputs = int64_t{1} << 14;

uint32_t bits_of(float value) {
  return std::bit_cast<uint32_t>(value);
}

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

Result<GpuDeltaNetKernel> GpuDeltaNetKernel::create(GpuDevice& device, const DeltaNetShape& shape,
                                                    DeltaNetSums wanted) {
  PENSTOCK_CHECK(suits(shape));
  const auto compile = [&](DeltaNetSums sums) {
    const uint32_t constants[] = {
        static_cast<uint32_t>(shape.key_dim), static_cast<uint32_t>(shape.value_dim),
        static_cast<uint32_t>(shape.conv_kernel), static_cast<uint32_t>(sums)};
    return device.kernel(Shader::kDeltaNet, constants);
  };
  GpuDeltaNetKernel whole;
  whole.shape_ = shape;
  whole.kernel_ = whole.whole_ = PENSTOCK_TRY(compile(DeltaNetSums::kWhole));
  if (wanted == DeltaNetSums::kWhole) return whole;
  const bool is_own = wanted == DeltaNetSums::kOwn;
  if (is_own && !PENSTOCK_TRY(has_right_fused(device, kFusedInputs))) return whole;
  GpuDeltaNetKernel quick = whole;
  quick.kernel_ = PENSTOCK_TRY(compile(wanted));
  quick.sums_ = wanted;
  for (const Tiny tiny : {Tiny::kNothing, Tiny::kStates, Tiny::kInputs}) {
    if (is_own && !PENSTOCK_TRY(agree(device, whole, quick, tiny))) return whole;
  }
  return quick;
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
  PENSTOCK_DCHECK(call.rows >= (call.ahead == 0 ? 1 : 2) && call.before != call.after);
  commands.dispatch(
      kernel,
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
                  .heads = static_cast<uint32_t>(shape_.key_heads) | heads << 16,
                  .memory = static_cast<uint32_t>(call.memory_at),
                  .strides = heads | heads * static_cast<uint32_t>(shape_.value_dim) << 16,
                  .eps = bits_of(shape_.rms_norm_eps),
                  .query_scale = bits_of(1.0f / std::sqrt(static_cast<float>(shape_.key_dim))),
                  .width_reciprocal = bits_of(1.0f / static_cast<float>(shape_.value_dim)),
                  .unused = 0},
      {heads, 1});
}

// Whether both give the same of two rows: results, states, what is kept of the inputs. With tiny states the
// delta rule is done again in place, with tiny inputs most heads are done twice.
Result<bool> GpuDeltaNetKernel::agree(GpuDevice& device, const GpuDeltaNetKernel& a,
                                      const GpuDeltaNetKernel& b, Tiny tiny) {
  constexpr int64_t kRows = 2;
  const DeltaNetShape& shape = a.shape_;
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
  const auto results = static_cast<size_t>(mixed + journal + state);
  const auto lost = static_cast<size_t>(shape.value_heads);  // behind these
  const GpuBuffer from = PENSTOCK_TRY(device.allocate(
      inputs.size() * sizeof(float), GpuMemoryKind::kShared, "a look at the delta-net's kernels"));
  PENSTOCK_TRY(device.write(from, 0, std::as_bytes(std::span(inputs))));
  std::vector<float> of_one;
  for (const GpuDeltaNetKernel* kernel : {&a, &b}) {
    const GpuBuffer to =
        PENSTOCK_TRY(device.allocate((results + lost) * sizeof(float), GpuMemoryKind::kShared,
                                     "a look at the delta-net's kernels"));
    const auto at = [](const GpuBuffer& buffer, int64_t byte) {
      return buffer.address() + static_cast<uint64_t>(byte);
    };
    constexpr int64_t kFloat = sizeof(float);
    GpuCommands commands = PENSTOCK_TRY(device.compute().begin());
    const Call calls[] = {{.qkv = at(from, qkv),
                           .z = at(from, z),
                           .b = at(from, of_b),
                           .a = at(from, of_a),
                           .result = at(to, 0),
                           .weights = at(from, weights),
                           .before = at(from, before),
                           .after = at(to, (mixed + journal) * kFloat),
                           .journal = at(to, mixed * kFloat),
                           .lost = to.address() + results * sizeof(float),
                           .rows = kRows,
                           .memory_at = history}};
    kernel->run(commands, calls);
    PENSTOCK_TRY(device.compute().finish(commands));
    std::vector<float> found(results);
    PENSTOCK_TRY(device.read(to, 0, std::as_writable_bytes(std::span(found))));
    if (of_one.empty()) {
      of_one = std::move(found);
    } else if (std::memcmp(of_one.data(), found.data(), results * sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace penstock
