#include "compute/cpu/product.h"

#include "base/check.h"

namespace penstock {

const ProductKernel& product_kernel(DType dtype, int64_t target, Arithmetic arithmetic) {
  switch (dtype) {
    case DType::kF32: return product_kernel_f32(target);
    case DType::kBF16: return product_kernel_bf16(target);
    case DType::kQ8: return product_kernel_q8(target, arithmetic);
    case DType::kQ4: return product_kernel_q4(target, arithmetic);
    case DType::kQ3: return product_kernel_q3(target, arithmetic);
    case DType::kQ2: return product_kernel_q2(target, arithmetic);
    case DType::kF16: break;  // not a panel type
  }
  PENSTOCK_CHECK(false);
  return product_kernel_f32(target);
}

}  // namespace penstock
