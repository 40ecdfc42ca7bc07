// Element types of stored tensors and of weight matrices: a table. What a type is called, how wide it
// is and how it lies in panels is said in its row of kDTypes and nowhere else; what multiplies it is a
// row of the backend's table of kernels (compute/cpu/product.cc). How other programs' files code
// weights is told by quant/coding.h.
//
// kQ8, kQ4, kQ3, kQ2 are affine groups of 64 along the input axis: w = scale * code + bias with an
// unsigned code and a bf16 scale and bias per group (MLX's arithmetic; docs/model.md, "Groups").
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace penstock {

enum class DType : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kQ3, kQ2 };

inline constexpr int64_t kGroupColumns = 64;  // columns that share one scale and one bias
inline constexpr int64_t kPanelRows = 16;     // rows that lie side by side (compute/panel.h)

struct DTypeTraits {
  DType dtype;
  std::string_view name;         // in our files, flags and messages
  std::string_view safetensors;  // in safetensors files; empty: not there
  int bits;                      // of one value; of one code of a quantised type
  bool is_quantised;             // codes in groups of kGroupColumns
  bool has_panels;               // a matrix may lie in panels of it
};

inline constexpr DTypeTraits kDTypes[] = {
    {DType::kF32, "f32", "F32", 32, false, true},    {DType::kF16, "f16", "F16", 16, false, false},
    {DType::kBF16, "bf16", "BF16", 16, false, true}, {DType::kQ8, "q8", "", 8, true, true},
    {DType::kQ4, "q4", "", 4, true, true},           {DType::kQ3, "q3", "", 3, true, true},
    {DType::kQ2, "q2", "", 2, true, true},
};

constexpr const DTypeTraits& traits_of(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype)];
}
constexpr bool is_dtype_table_in_order() {
  size_t at = 0;
  for (const DTypeTraits& traits : kDTypes) {
    if (static_cast<size_t>(traits.dtype) != at++) return false;
  }
  return true;
}
static_assert(is_dtype_table_in_order());

constexpr std::string_view name_of(DType dtype) {
  return traits_of(dtype).name;
}

constexpr bool is_quantised(DType dtype) {
  return traits_of(dtype).is_quantised;
}

// Bits of one code of a quantised type; bits of one element of the others.
constexpr int bits_of(DType dtype) {
  return traits_of(dtype).bits;
}

// By `name`.
constexpr std::optional<DType> parse_dtype(std::string_view name) {
  for (const DTypeTraits& traits : kDTypes) {
    if (traits.name == name) return traits.dtype;
  }
  return std::nullopt;
}

// By the width of its codes in digits, as flags give it: "4" is kQ4.
constexpr std::optional<DType> quantised_dtype(std::string_view bits) {
  for (const DTypeTraits& traits : kDTypes) {
    if (traits.is_quantised && traits.name.substr(1) == bits) return traits.dtype;
  }
  return std::nullopt;
}

// Bytes of a block of a panel: 16 rows of 64 columns and, of quantised types, their scales and biases.
constexpr int64_t block_bytes(DType dtype) {
  const int64_t codes = kPanelRows * kGroupColumns * bits_of(dtype) / 8;
  return codes + (is_quantised(dtype) ? kPanelRows * 4 : 0);
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

// Number `index` of an array of a float type that lies at any address; exact.
inline float load_float(DType dtype, const std::byte* numbers, size_t index) {
  if (dtype == DType::kF32) {
    float value = 0;
    std::memcpy(&value, numbers + 4 * index, sizeof(value));
    return value;
  }
  uint16_t half = 0;
  std::memcpy(&half, numbers + 2 * index, sizeof(half));
  return dtype == DType::kBF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

}  // namespace penstock
