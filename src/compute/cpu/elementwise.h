// The small row ops, one row at a time and on one thread. Every operation is rounded by itself, and
// the functions are those of exact_math.h; products that experts are made of (silu_multiply and
// combine) are exact_product().
//
// Each moves its inputs and outputs once; none does more than about sixty instructions (an
// exponential and a reciprocal) per element, so the nearest cache is their limit.
//
// Threads  functions of their arguments alone
#pragma once

#include <cstdint>

namespace penstock {

struct ElementwiseKernels {
  // out = x / sqrt(mean(x^2) + eps) * weight. May be in place.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t width, float* out);

  // out = x + y. May be in place.
  void (*add)(const float* x, const float* y, int64_t width, float* out);

  // out = silu(gate) .* up
  void (*silu_multiply)(const float* gate, const float* up, int64_t width, float* out);

  // y = sum_k weights[k] * rows[k], k in order from zero; then y = y + sigmoid(shared_gate) *
  // shared, unless `shared` is nullptr. Row k is at rows + k * stride.
  void (*combine)(const float* rows, int64_t stride, const float* weights, int num_rows,
                  float shared_gate, const float* shared, int64_t width, float* y);
};

// The kernels of an instruction set (a Highway target of this build).
const ElementwiseKernels& elementwise_kernels(int64_t target);

}  // namespace penstock
