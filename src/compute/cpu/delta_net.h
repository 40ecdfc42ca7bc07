// The gated delta rule on the team of threads (backend.h: DeltaNetCall).
//
// Two parallel regions. First, per key head: convolution and silu of the channels of q and k, their
// normalisation, and the product k . q. Then, per value head: convolution of v, gates, the
// recurrence and the gated norm. A head goes through all tokens by itself, a strip of columns of
// its memory at a time, which lies in one piece in the nearest cache meanwhile.
//
// One token in the form that reads the old memory S once and writes it once (docs/model.md):
//   m = S^T k,  p = S^T q          i ascending, each an fma
//   d = beta * (v - decay * m)     o = decay * p + (k . q) * d
//   S = decay * S + k d^T          an fma; the line above without, with exact_exp and its kin
//
// From one token to the next S is read and written once: while it is updated, the m and p of the next
// token are summed.
//
// Moves  8 bytes per element of the memories and token of a decode step
// Costs  two fmas, a product and an fma per element and token
#pragma once

#include "base/thread_pool.h"
#include "compute/backend.h"
#include "compute/cpu/scratch.h"

namespace penstock {

// Of a strip, at most.
inline constexpr int64_t kDeltaStripColumns = 64;

// One value head, `tokens` rows. Strides in floats.
struct DeltaRule {
  int64_t key_dim, value_dim, tokens;
  const float* queries;  // row t at + t * key_stride: q [key_dim], then k [key_dim]
  int64_t key_stride;
  const float* key_dots;  // k . q of row t at + t * key_dot_stride
  int64_t key_dot_stride;
  const float* gates;   // decay and beta of row t at + 2 * t
  const float* before;  // [key_dim, value_dim]
  float* memory;        // likewise; becomes the state after the last row; may be `before`
  bool is_streamed;     // memory may be written past the caches: not `before`, on a cache line
  float* strip;         // [key_dim, kDeltaStripColumns]: scratch
  float* values;        // row t at + t * value_stride: v [value_dim]; becomes o
  int64_t value_stride;
};

struct DeltaNetKernels {
  // out = silu(sum_j taps[j] .* inputs[j]), j ascending. taps: [kernel, width].
  void (*convolve)(const float* taps, const float* const* inputs, int kernel, int64_t width,
                   float* out);
  // x *= scale / sqrt(sum(x^2) + 1e-6)
  void (*normalise)(float* x, int64_t width, float scale);
  float (*dot)(const float* x, const float* y, int64_t width);
  void (*delta_rule)(const DeltaRule& rule);
  // x = x / sqrt(mean(x^2) + eps) * weight * silu(gate)
  void (*gated_norm)(float* x, const float* weight, const float* gate, float eps, int64_t width);
};

const DeltaNetKernels& delta_net_kernels(int64_t target);

struct DeltaNetScratch {
  DeltaNetScratch(int threads, const BackendLimits& limits, ScratchCursor& cursor);

  int64_t max_tokens;
  float* key_queries;  // [tokens, key_heads, 2, key_dim]
  float* key_dots;     // [tokens, key_heads]
  float* gates;        // [value_heads, tokens, 2]
  int64_t taps_floats;
  float* taps;  // [threads, conv_kernel, max(key_dim, value_dim)]
  int64_t strip_floats;
  float* strips;  // [threads, key_dim, kDeltaStripColumns]
};

class DeltaNet {
 public:
  DeltaNet(ThreadPool& pool, int64_t target, const DeltaNetScratch& scratch);
  void run(const DeltaNetCall& call);

 private:
  void prepare_keys(const DeltaNetCall& call, int64_t head, int64_t first, int64_t end,
                    int worker) const;
  void run_head(const DeltaNetCall& call, int64_t head, int worker) const;
  void keep_inputs(const DeltaNetCall& call, int64_t head) const;
  void convolve(const DeltaNetCall& call, int64_t channel, int64_t width, int64_t first,
                int64_t end, float* out, int64_t out_stride, int worker) const;

  ThreadPool& pool_;
  const DeltaNetKernels& kernels_;
  DeltaNetScratch scratch_;
};

}  // namespace penstock
