#include "compute/cpu/product.h"

#include "base/check.h"

namespace penstock {

namespace {

// With fewer rows, the tiles' empty rows cost more than the vectors'.
constexpr int64_t kByteTileRowsMin = 10;

}  // namespace

const ProductKernel& product_kernel(DType dtype, const KernelChoice& choice, int64_t rows) {
  const int64_t target = choice.target;
  const Arithmetic arithmetic = choice.arithmetic;
  if (choice.byte_tiles != ByteTiles::kNone && rows >= kByteTileRowsMin && is_quantised(dtype) &&
      arithmetic == Arithmetic::kFixed16) {
    return byte_tile_kernel(dtype, target, choice.byte_tiles);
  }
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
