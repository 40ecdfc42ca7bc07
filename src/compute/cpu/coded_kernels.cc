#include "compute/cpu/coded_kernel.h"

namespace penstock {
namespace {

const CodedKernel* kernels_of(const Coding& coding, int64_t target) {
  if (coding.kind == Coding::Kind::kAffine) return coded_kernels_of_affine(coding, target);
  const bool is_long = coding.kind == Coding::Kind::kBlocks && unit_columns(coding) > kGroupColumns;
  if (!is_long) return coded_kernels_of_32(coding, target);
  const CodedKernel* of_grid = coded_kernels_of_grids(coding, target);
  return of_grid != nullptr ? of_grid : coded_kernels_of_256(coding, target);
}

}  // namespace

const CodedKernel* coded_kernel(const Coding& coding, const KernelChoice& choice) {
  if (coding.kind == Coding::Kind::kFp8) return coded_kernel_of_fp8(coding, choice.target);
  if (choice.arithmetic == Arithmetic::kFloat32) return nullptr;
  const CodedKernel* kernels = kernels_of(coding, choice.target);
  return kernels == nullptr ? nullptr : kernels + (choice.has_pair_dots ? 1 : 0);
}

}  // namespace penstock
