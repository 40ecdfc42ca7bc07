// Affine groups as MLX stores them: codes of 2, 3, 4, 5, 6 or 8 bits, a scale and a bias a group.
//
// A row of codes is one little-endian stream of bits: code j has bits j * bits to (j + 1) * bits.
// A row of scales and one of biases lie elsewhere, one number per group of neighbours. A weight is
// scale * code + bias: the product is exact in f32 (8 bits of BF16 or 11 of F16 times 8), the sum
// rounds once.
//
// Also mode mxfp4 of the same writer: codes of 4 bits are E2M1 values, the scale of 32 is E8M0,
// there is no bias.
//
// Threads  Plain functions over the caller's bytes, at any address; nothing is allocated.
// Source   Checked against PyPI `mlx`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace penstock {

struct AffineCoding {
  int bits = 4;                 // 2, 3, 4, 5, 6, 8
  int64_t group = 64;           // columns that share a scale and a bias
  DType scales = DType::kBF16;  // of scales and biases: kBF16, kF16 or kF32

  bool operator==(const AffineCoding&) const = default;
};

constexpr bool are_affine_bits(int64_t bits) {
  return bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8;
}

// Code `index` of a row of codes, and putting one into a row of zeros.
uint32_t affine_code(std::span<const std::byte> codes, int bits, int64_t index);
void put_affine_code(std::span<std::byte> codes, int bits, int64_t index, uint32_t code);

// One row: columns = values.size(), a multiple of the group; columns * bits / 8 bytes of codes,
// columns / group scales and as many biases.
void decode_affine_row(const AffineCoding& coding, std::span<const std::byte> codes,
                       std::span<const std::byte> scales, std::span<const std::byte> biases,
                       std::span<float> values);

inline constexpr int64_t kMlxMxfp4Group = 32;
void decode_mlx_mxfp4_row(std::span<const std::byte> codes, std::span<const std::byte> scales,
                          std::span<float> values);

}  // namespace penstock
