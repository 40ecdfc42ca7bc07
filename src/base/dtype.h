// Element types of stored tensors and of weight matrices.
//
// kQ8, kQ4, kQ3, kQ2 are affine groups of 64 along the input axis: w = scale * code + bias with an
// unsigned code and a bf16 scale and bias per group (MLX's arithmetic; docs/model.md, "Groups").
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace penstock {

enum class DType : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kQ3, kQ2 };

inline constexpr int64_t kGroupColumns = 64;  // columns that share one scale and one bias

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "f32";
    case DType::kF16: return "f16";
    case DType::kBF16: return "bf16";
    case DType::kQ8: return "q8";
    case DType::kQ4: return "q4";
    case DType::kQ3: return "q3";
    case DType::kQ2: return "q2";
  }
  return "?";
}

constexpr bool is_quantised(DType dtype) {
  return dtype >= DType::kQ8;
}

// Bits of one code of a quantised type; bits of one element of the others.
constexpr int bits_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return 32;
    case DType::kF16:
    case DType::kBF16: return 16;
    case DType::kQ8: return 8;
    case DType::kQ4: return 4;
    case DType::kQ3: return 3;
    case DType::kQ2: return 2;
  }
  return 0;
}

constexpr float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Round to nearest, ties to even; NaN stays NaN.
constexpr uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Exact: every f16 value is an f32 value.
constexpr float f16_to_f32(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

}  // namespace penstock
