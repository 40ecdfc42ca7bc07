#include "quant/affine_groups.h"

#include "base/check.h"
#include "quant/codebook_blocks.h"

namespace penstock {
uint32_t affine_code(std::span<const std::byte> codes, int bits, int64_t index) {
  const auto first_bit = static_cast<size_t>(index) * static_cast<size_t>(bits);
  const size_t byte = first_bit / 8;
  uint32_t word = std::to_integer<uint32_t>(codes[byte]);
  if (byte + 1 < codes.size()) word |= std::to_integer<uint32_t>(codes[byte + 1]) << 8;
  return word >> (first_bit % 8) & ((1u << bits) - 1);
}

void put_affine_code(std::span<std::byte> codes, int bits, int64_t index, uint32_t code) {
  const auto first_bit = static_cast<size_t>(index) * static_cast<size_t>(bits);
  const size_t byte = first_bit / 8;
  const uint32_t word = code << (first_bit % 8);
  codes[byte] |= std::byte(word & 255u);
  if (word > 255) codes[byte + 1] |= std::byte(word >> 8);
}

void decode_affine_row(const AffineCoding& coding, std::span<const std::byte> codes,
                       std::span<const std::byte> scales, std::span<const std::byte> biases,
                       std::span<float> values) {
  const size_t number_bytes = static_cast<size_t>(bits_of(coding.scales)) / 8;
  const auto group = static_cast<size_t>(coding.group);
  PENSTOCK_CHECK(are_affine_bits(coding.bits) && values.size() % group == 0);
  PENSTOCK_CHECK(codes.size() * 8 == values.size() * static_cast<size_t>(coding.bits));
  PENSTOCK_CHECK(scales.size() == values.size() / group * number_bytes);
  PENSTOCK_CHECK(biases.size() == scales.size());
  for (size_t g = 0; g < values.size() / group; ++g) {
    const float scale = load_float(coding.scales, scales.data(), g);
    const float bias = load_float(coding.scales, biases.data(), g);
    float* out = values.data() + g * group;
    if (coding.bits == 4 && group % 2 == 0) {
      const std::byte* pairs = codes.data() + g * group / 2;
      for (size_t i = 0; i < group / 2; ++i) {
        const auto pair = std::to_integer<uint32_t>(pairs[i]);
        out[2 * i] = scale * static_cast<float>(pair & 15u) + bias;
        out[2 * i + 1] = scale * static_cast<float>(pair >> 4) + bias;
      }
    } else if (coding.bits == 8) {
      const std::byte* bytes = codes.data() + g * group;
      for (size_t i = 0; i < group; ++i) {
        out[i] = scale * static_cast<float>(std::to_integer<uint32_t>(bytes[i])) + bias;
      }
    } else {
      for (size_t i = 0; i < group; ++i) {
        const auto index = static_cast<int64_t>(g * group + i);
        out[i] = scale * static_cast<float>(affine_code(codes, coding.bits, index)) + bias;
      }
    }
  }
}

void decode_mlx_mxfp4_row(std::span<const std::byte> codes, std::span<const std::byte> scales,
                          std::span<float> values) {
  PENSTOCK_CHECK(codes.size() * 2 == values.size());
  PENSTOCK_CHECK(scales.size() * static_cast<size_t>(kMlxMxfp4Group) == values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const auto scale = std::to_integer<uint8_t>(scales[i / static_cast<size_t>(kMlxMxfp4Group)]);
    const uint32_t code = affine_code(codes, 4, static_cast<int64_t>(i));
    values[i] = half_of_e8m0(scale) * static_cast<float>(kE2m1Doubled[code]);
  }
}

}  // namespace penstock
