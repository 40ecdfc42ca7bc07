#include "compute/cpu/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/elementwise.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

void RmsNorm(const float* x, const float* weight, float eps, int64_t width, float* out) {
  const float mean = Dot(x, x, width) * (1.0f / static_cast<float>(width));
  const FloatVec scale = hn::Set(Floats(), exact_rsqrt(mean + eps));
  for (int64_t i = 0; i < width; i += kLanes) {
    const FloatVec scaled = hn::Mul(LoadFirst(x + i, width - i), scale);
    StoreFirst(hn::Mul(scaled, LoadFirst(weight + i, width - i)), out + i, width - i);
  }
}

void AddRows(const float* x, const float* y, int64_t width, float* out) {
  for (int64_t i = 0; i < width; i += kLanes) {
    const FloatVec sum = hn::Add(LoadFirst(x + i, width - i), LoadFirst(y + i, width - i));
    StoreFirst(sum, out + i, width - i);
  }
}

void SiluMultiply(const float* gate, const float* up, int64_t width, float* out) {
  for (int64_t i = 0; i < width; i += kLanes) {
    const FloatVec activated = Silu(Floats(), LoadFirst(gate + i, width - i));
    StoreFirst(Product(Floats(), activated, LoadFirst(up + i, width - i)), out + i, width - i);
  }
}

void Combine(const float* rows, int64_t stride, const float* weights, int num_rows,
             float shared_gate, const float* shared, int64_t width, float* y) {
  const FloatVec gate = Sigmoid(Floats(), hn::Set(Floats(), shared_gate));
  for (int64_t i = 0; i < width; i += kLanes) {
    FloatVec sum = hn::Zero(Floats());
    for (int k = 0; k < num_rows; ++k) {
      const FloatVec row = LoadFirst(rows + k * stride + i, width - i);
      sum = hn::Add(sum, Product(Floats(), hn::Set(Floats(), weights[k]), row));
    }
    if (shared != nullptr) {
      sum = hn::Add(sum, Product(Floats(), gate, LoadFirst(shared + i, width - i)));
    }
    StoreFirst(sum, y + i, width - i);
  }
}

const ElementwiseKernels* Elementwise() {
  static constexpr ElementwiseKernels kKernels = {&RmsNorm, &AddRows, &SiluMultiply, &Combine};
  return &kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(Elementwise);
const ElementwiseKernels& elementwise_kernels(int64_t target) {
  return *PENSTOCK_AT_TARGET(Elementwise, target)();
}
}  // namespace penstock
#endif
