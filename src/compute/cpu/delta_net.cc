#include "compute/cpu/delta_net.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "compute/exact_math.h"

namespace penstock {
namespace {

constexpr int64_t kKeyTaskTokens = 64;
constexpr uintptr_t kCacheLineBytes = 64;
// Layers' states of this size do not stay in a cache until the next token. Written elsewhere than they
// were read, they would be fetched once more only to be overwritten.
constexpr int64_t kStreamedFloats = int64_t{1} << 18;
constexpr int kConvKernelMax = 16;

// The last inputs of channels [begin, end) become the history of the next call. `to` may be `from`.
void keep_history(const DeltaNetShape& shape, Rows qkv, int64_t begin, int64_t end,
                  const float* from, float* to) {
  const int64_t kept = shape.conv_kernel - 1;
  const int64_t channels = shape.conv_channels();
  const int64_t old = std::max<int64_t>(0, kept - qkv.count);  // rows that stay
  for (int64_t j = 0; j < kept; ++j) {
    const float* row = j < old ? from + (kept - old + j) * channels
                               : qkv.data + (qkv.count - kept + j) * qkv.stride;
    std::copy(row + begin, row + end, to + j * channels + begin);
  }
}

}  // namespace

DeltaNetScratch::DeltaNetScratch(int threads, const BackendLimits& limits, ScratchCursor& cursor) {
  const DeltaNetShape& shape = limits.delta_net;
  max_tokens = limits.tokens;
  key_queries = cursor.take<float>(max_tokens * shape.key_heads * 2 * shape.key_dim);
  key_dots = cursor.take<float>(max_tokens * shape.key_heads);
  gates = cursor.take<float>(max_tokens * shape.value_heads * 2);
  taps_floats =
      ceil_div(int64_t{shape.conv_kernel} * std::max(shape.key_dim, shape.value_dim), 16) * 16;
  taps = cursor.take<float>(threads * taps_floats);
  strip_floats = shape.key_dim * kDeltaStripColumns;
  strips = cursor.take<float>(threads * strip_floats);
}

DeltaNet::DeltaNet(ThreadPool& pool, int64_t target, const DeltaNetScratch& scratch)
    : pool_(pool), kernels_(delta_net_kernels(target)), scratch_(scratch) {}

void DeltaNet::run(const DeltaNetCall& call) {
  const DeltaNetShape& shape = call.shape;
  const int64_t tokens = call.qkv.count;
  PENSTOCK_CHECK(tokens <= scratch_.max_tokens);
  PENSTOCK_CHECK(shape.key_dim * kDeltaStripColumns <= scratch_.strip_floats);
  PENSTOCK_CHECK(shape.conv_kernel >= 1 && shape.conv_kernel <= kConvKernelMax);
  PENSTOCK_CHECK(shape.key_heads > 0 && shape.value_heads % shape.key_heads == 0);
  PENSTOCK_CHECK(call.qkv.width == shape.conv_channels());
  const int64_t chunks = ceil_div(tokens, kKeyTaskTokens);
  pool_.run(shape.key_heads * chunks, [&](int64_t task, int worker) {
    const int64_t first = task % chunks * kKeyTaskTokens;
    prepare_keys(call, task / chunks, first, std::min(first + kKeyTaskTokens, tokens), worker);
  });
  pool_.run(shape.value_heads, [&](int64_t head, int worker) { run_head(call, head, worker); });
}

// Of the channels of a head's values, and of its share of those of the keys, which all have been
// read by then.
void DeltaNet::keep_inputs(const DeltaNetCall& call, int64_t head) const {
  const DeltaNetShape& shape = call.shape;
  const int64_t key_channels = 2 * int64_t{shape.key_heads} * shape.key_dim;
  const auto keep = [&](int64_t begin, int64_t end) {
    Rows kept = call.qkv;
    if (call.ahead.memory != nullptr) {
      keep_history(shape, kept, begin, end, call.before.conv_history, call.ahead.conv_history);
      kept = kept.first(kept.count - 1);
    }
    keep_history(shape, kept, begin, end, call.before.conv_history, call.after.conv_history);
  };
  keep(key_channels * head / shape.value_heads, key_channels * (head + 1) / shape.value_heads);
  keep(key_channels + head * shape.value_dim, key_channels + (head + 1) * shape.value_dim);
}

void DeltaNet::prepare_keys(const DeltaNetCall& call, int64_t head, int64_t first, int64_t end,
                            int worker) const {
  const DeltaNetShape& shape = call.shape;
  const int64_t dim = shape.key_dim;
  const int64_t stride = 2 * dim * shape.key_heads;
  float* queries = scratch_.key_queries + 2 * dim * head;
  convolve(call, head * dim, dim, first, end, queries, stride, worker);
  convolve(call, (shape.key_heads + head) * dim, dim, first, end, queries + dim, stride, worker);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (int64_t t = first; t < end; ++t) {
    float* q = queries + t * stride;
    kernels_.normalise(q, dim, scale);
    kernels_.normalise(q + dim, dim, 1.0f);
    scratch_.key_dots[t * shape.key_heads + head] = kernels_.dot(q, q + dim, dim);
  }
}

void DeltaNet::run_head(const DeltaNetCall& call, int64_t head, int worker) const {
  const DeltaNetShape& shape = call.shape;
  const int64_t tokens = call.qkv.count;
  const int64_t dim = shape.value_dim;
  const int64_t key_head = head / (shape.value_heads / shape.key_heads);
  float* gates = scratch_.gates + 2 * head * tokens;
  for (int64_t t = 0; t < tokens; ++t) {
    const float input = call.a.data[t * call.a.stride + head] + call.weights.dt_bias[head];
    gates[2 * t] = exact_exp(call.weights.decay[head] * exact_softplus(input));
    gates[2 * t + 1] = exact_sigmoid(call.b.data[t * call.b.stride + head]);
  }
  float* values = call.out.data + head * dim;
  const int64_t first_value = 2LL * shape.key_heads * shape.key_dim;
  convolve(call, first_value + head * dim, dim, 0, tokens, values, call.out.stride, worker);
  const int64_t key_stride = 2LL * shape.key_heads * shape.key_dim;
  const int64_t size = int64_t{shape.key_dim} * dim;
  const bool is_large = shape.value_heads * size >= kStreamedFloats;
  const auto apply = [&](int64_t first, int64_t count, const float* before, float* memory) {
    kernels_.delta_rule(
        {.key_dim = shape.key_dim,
         .value_dim = dim,
         .tokens = count,
         .queries = scratch_.key_queries + 2 * key_head * shape.key_dim + first * key_stride,
         .key_stride = key_stride,
         .key_dots = scratch_.key_dots + key_head + first * shape.key_heads,
         .key_dot_stride = shape.key_heads,
         .gates = gates + 2 * first,
         .before = before,
         .memory = memory,
         .is_streamed = before != memory && is_large &&
                        reinterpret_cast<uintptr_t>(memory) % kCacheLineBytes == 0,
         .strip = scratch_.strips + worker * scratch_.strip_floats,
         .values = values + first * call.out.stride,
         .value_stride = call.out.stride});
  };
  const float* before = call.before.memory + head * size;
  float* after = call.after.memory + head * size;
  if (call.ahead.memory == nullptr) {
    apply(0, tokens, before, after);
  } else {
    float* ahead = call.ahead.memory + head * size;
    // A trial of the only row leaves the state where it was.
    if (tokens > 1) {
      apply(0, tokens - 1, before, after);
    } else if (after != before) {
      std::copy(before, before + size, after);
    }
    apply(tokens - 1, 1, after, ahead);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    kernels_.gated_norm(values + t * call.out.stride, call.weights.norm,
                        call.z.data + t * call.z.stride + head * dim, shape.rms_norm_eps, dim);
  }
  keep_inputs(call, head);
}

// Rows [first, end) of channels [channel, channel + width) to out + t * out_stride.
void DeltaNet::convolve(const DeltaNetCall& call, int64_t channel, int64_t width, int64_t first,
                        int64_t end, float* out, int64_t out_stride, int worker) const {
  const int kernel = call.shape.conv_kernel;
  const int64_t channels = call.shape.conv_channels();
  float* taps = scratch_.taps + worker * scratch_.taps_floats;
  for (int j = 0; j < kernel; ++j) {
    for (int64_t c = 0; c < width; ++c) {
      taps[j * width + c] = call.weights.conv[(channel + c) * kernel + j];
    }
  }
  for (int64_t t = first; t < end; ++t) {
    std::array<const float*, kConvKernelMax> inputs;
    for (int j = 0; j < kernel; ++j) {
      const int64_t row = t - (kernel - 1) + j;
      inputs[static_cast<size_t>(j)] =
          channel + (row >= 0 ? call.qkv.data + row * call.qkv.stride
                              : call.before.conv_history + (kernel - 1 + row) * channels);
    }
    kernels_.convolve(taps, inputs.data(), kernel, width, out + t * out_stride);
  }
}

}  // namespace penstock
