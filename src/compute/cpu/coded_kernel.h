// The product of coded panels on one thread (compute/coded_panels.h): what ProductKernel is for panels.
//
// Threads  functions of their arguments alone
// Source   order of operations: compute/coded_panels.h
#pragma once

#include "compute/coded_panels.h"
#include "compute/cpu/product.h"

namespace penstock {

// One panel, plane by plane.
struct CodedPanel {
  const std::byte* codes;
  const std::byte* scales;
  const std::byte* biases;
};

inline constexpr int kCodedTileRowsMax = 12;  // of any kernel

struct CodedKernel {
  int tile_rows;  // rows of x that one call takes at most
  int (*padded_rows)(int rows);

  // As ProductKernel has them. packed: at most as many bytes as that for as many rows.
  void (*pack)(const float* const* rows, int num_rows, int64_t columns, std::byte* packed);
  void (*pack_fixed)(const FixedRow* rows, int num_rows, int64_t columns, std::byte* packed);

  // totals[panel, row, 16] = the product. `blocks` blocks of 64 columns in every panel.
  // Moves  the bytes of the panels
  // Costs  for one row of x: two sums of four products of bytes (AVX-512) or two of two products of
  //        16-bit numbers for each four codes of sixteen rows, and one to five operations to have
  //        these side by side as bytes; for each group about six to nine for its scale. For several
  //        rows the latter once. FP8: six operations and one fma a weight.
  void (*product)(const CodedPanel* panels, int num_panels, const Coding& coding, int64_t blocks,
                  const std::byte* packed, int padded, float* totals);
};

// nullptr where the matrix is to be decoded and multiplied as f32: kFloat32 but of FP8.
const CodedKernel* coded_kernel(const Coding& coding, const KernelChoice& choice);

// One function per kind of units, each in its own file: two kernels, by vectors alone and with
// KernelChoice::has_pair_dots; of FP8 one.
const CodedKernel* coded_kernels_of_32(const Coding& coding, int64_t target);
const CodedKernel* coded_kernels_of_256(const Coding& coding, int64_t target);
const CodedKernel* coded_kernels_of_grids(const Coding& coding, int64_t target);
const CodedKernel* coded_kernels_of_affine(const Coding& coding, int64_t target);
const CodedKernel* coded_kernel_of_fp8(const Coding& coding, int64_t target);

}  // namespace penstock
