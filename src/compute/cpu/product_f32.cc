#include "compute/cpu/product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/product_f32.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {
const ProductKernel* F32Kernel() {
  return KernelOf<F32Format>();
}
}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(F32Kernel);
const ProductKernel& product_kernel_f32(const KernelChoice& choice) {
  return *PENSTOCK_AT_TARGET(F32Kernel, choice.target)();
}
}  // namespace penstock
#endif
