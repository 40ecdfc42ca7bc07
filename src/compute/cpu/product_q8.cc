#include "compute/cpu/product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/product_q8.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/fixed_product-inl.h"
#include "compute/cpu/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {
const ProductKernel* Q8Kernel() {
  return KernelOf<WordFormat<DType::kQ8>>();
}
const ProductKernel* Q8FixedKernels() {
  return FixedKernelsOf<FixedQ8>();
}
}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(Q8Kernel);
HWY_EXPORT(Q8FixedKernels);
const ProductKernel& product_kernel_q8(const KernelChoice& choice) {
  if (choice.arithmetic == Arithmetic::kFloat32)
    return *PENSTOCK_AT_TARGET(Q8Kernel, choice.target)();
  const int64_t target = dot_product_target(choice.target);
  return PENSTOCK_AT_TARGET(Q8FixedKernels, target)()[choice.has_pair_dots];
}
}  // namespace penstock
#endif
