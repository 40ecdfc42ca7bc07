#include "compute/cpu/product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/product_bf16.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {
const ProductKernel* BF16Kernel() {
  return KernelOf<BF16Format>();
}
}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(BF16Kernel);
const ProductKernel& product_kernel_bf16(const KernelChoice& choice) {
  return *PENSTOCK_AT_TARGET(BF16Kernel, choice.target)();
}
}  // namespace penstock
#endif
