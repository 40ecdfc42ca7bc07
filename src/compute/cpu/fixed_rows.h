// Rows of x in 16-bit fixed point (Arithmetic::kFixed16): made once in an op, packed by every task's
// kernel in its own order.
//
// Threads  functions of their arguments alone
// Source   the numbers: compute/panel.h, compute/fixed16.h
#pragma once

#include <cstdint>

namespace penstock {

// One row; a view. Blocks are of 64 columns.
struct FixedRow {
  const int16_t* numbers;  // [columns], in the columns' order
  const float* scales;     // [blocks]: what a number of 1 stands for
  const float* sums;       // [blocks]: of what a block's numbers stand for
};

// x: [blocks * 64] -> numbers: [blocks * 64], scales: [blocks], sums: [blocks]
using ToFixedKernel = void (*)(const float* x, int64_t blocks, int16_t* numbers, float* scales,
                               float* sums);

// The kernel of an instruction set (a Highway target of this build).
ToFixedKernel to_fixed_kernel(int64_t target);

}  // namespace penstock
