#include "compute/cpu/coded_kernel.h"

namespace penstock {

const CodedKernel* coded_kernel(const Coding& coding, const KernelChoice& choice) {
  if (coding.kind == Coding::Kind::kFp8) return coded_kernel_of_fp8(coding, choice.target);
  if (choice.arithmetic == Arithmetic::kFloat32) return nullptr;
  if (coding.kind == Coding::Kind::kAffine) return coded_kernel_of_affine(coding, choice.target);
  const bool is_long = coding.kind == Coding::Kind::kBlocks && unit_columns(coding) > kGroupColumns;
  if (!is_long) return coded_kernel_of_32(coding, choice.target);
  const CodedKernel* of_grid = coded_kernel_of_grids(coding, choice.target);
  return of_grid != nullptr ? of_grid : coded_kernel_of_256(coding, choice.target);
}

}  // namespace penstock
