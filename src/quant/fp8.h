// FP8 weights: E4M3 codes with one scale for each square of 128 by 128.
//
// E4M3: sign, 4 bits of exponent (bias 7), 3 of mantissa; the largest is 448, 0x7f and 0xff are not
// numbers, there is no infinity. A weight is value * scale of its square (published under the name
// weight_scale_inv, and multiplied nevertheless). Squares at the right and lower edge may be
// partial. With a BF16 scale the product is exact in f32, with an F32 scale it rounds once.
//
// Threads  Plain functions; nothing is allocated.
// Source   OCP 8-bit Floating Point, E4M3; checked against the reference loader's rule.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace penstock {

inline constexpr int64_t kFp8Square = 128;

constexpr float e4m3_to_f32(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t exponent = code >> 3 & 15u;
  const uint32_t mantissa = code & 7u;
  if ((code & 0x7fu) == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  return std::bit_cast<float>(sign | (exponent + 120u) << 23 | mantissa << 20);
}

// One row. scales: of the row's squares, ceil(columns / 128) numbers of `dtype` (kBF16, kF16 or
// kF32) at any address.
void decode_fp8_row(std::span<const std::byte> codes, DType dtype,
                    std::span<const std::byte> scales, std::span<float> values);

}  // namespace penstock
