#include "compute/cpu/product.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace penstock {

namespace {

// With fewer rows, the tiles' empty rows cost more than the vectors'.
constexpr int64_t kByteTileRowsMin = 10;

struct Kernels {
  DType dtype;
  const ProductKernel& (*by_vectors)(const KernelChoice& choice);
};
constexpr Kernels kKernels[] = {
    {DType::kF32, product_kernel_f32}, {DType::kBF16, product_kernel_bf16},
    {DType::kQ8, product_kernel_q8},   {DType::kQ4, product_kernel_q4},
    {DType::kQ3, product_kernel_q3},   {DType::kQ2, product_kernel_q2},
};

constexpr bool has_kernel_for_all_panels() {
  return std::ranges::all_of(kDTypes, [](const DTypeTraits& type) {
    return !type.has_panels ||
           std::ranges::find(kKernels, type.dtype, &Kernels::dtype) != std::end(kKernels);
  });
}
static_assert(has_kernel_for_all_panels());

}  // namespace

const ProductKernel& product_kernel(DType dtype, const KernelChoice& choice, int64_t rows) {
  if (choice.byte_tiles != ByteTiles::kNone && rows >= kByteTileRowsMin && is_quantised(dtype) &&
      choice.arithmetic == Arithmetic::kFixed16) {
    return byte_tile_kernel(dtype, choice.target, choice.byte_tiles);
  }
  const auto* row = std::ranges::find(kKernels, dtype, &Kernels::dtype);
  PENSTOCK_CHECK(row != std::end(kKernels));
  return row->by_vectors(choice);
}

}  // namespace penstock
