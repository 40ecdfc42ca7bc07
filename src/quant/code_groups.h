// Coded weights as what they are before they become floats: whole numbers, with a scale and a
// minimum that neighbours share.
//
//   weight = scale * code + minimum        -128 <= code <= 255
//
// Scale and minimum are f32 numbers that hold exactly what the file says (a half times a small
// integer, a power of two, a bf16). The arithmetic of such weights is defined by them
// (compute/panel.h): codes are multiplied and summed as integers.
//
// Groups  Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL MXFP4 Q4_K Q5_K IQ4_XS IQ2_XXS IQ3_XXS IQ3_S: 32 columns;
//         Q2_K Q3_K Q6_K IQ2_XS IQ2_S: 16; TQ2_0: 256; MLX: as it says
// Minima  Q4_1, Q5_1, Q2_K, Q4_K, Q5_K and affine ones; the others' are 0, and codes below 0
// Codes   those of IQ4_NL and IQ4_XS are their sixteen values, those of IQ2 and IQ3 the numbers of
//         their grids, those of MXFP4 twice its values
//
// Written to be read: kernels have their own ways to the same numbers (compute/cpu/coded-inl.h).
//
// Threads  Plain functions; nothing is allocated.
// Source   legacy_blocks.h, k_blocks.h, codebook_blocks.h, grid_blocks.h, affine_groups.h
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/coding.h"

namespace penstock {

struct CodeGroup {
  float scale = 0, minimum = 0;
  std::array<int16_t, 256> codes = {};  // as many as the group has columns
};

// Columns of a group; 0: weights of this coding are not of this kind, or nobody has said so yet.
int64_t code_group_columns(const Coding& coding);

// Whether products subtract nothing but add minimum times the sum of the inputs.
bool has_minima(const Coding& coding);

// Group `index` of a row, from the row's planes as the file has them.
CodeGroup code_group(const Coding& coding, std::span<const std::byte> codes,
                     std::span<const std::byte> scales, std::span<const std::byte> biases,
                     int64_t index);

}  // namespace penstock
