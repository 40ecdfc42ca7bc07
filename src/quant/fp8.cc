#include "quant/fp8.h"

#include "base/check.h"
#include "quant/block_load.h"

namespace penstock {

void decode_fp8_row(std::span<const std::byte> codes, DType dtype,
                    std::span<const std::byte> scales, std::span<float> values) {
  const size_t number_bytes = static_cast<size_t>(bits_of(dtype)) / 8;
  const auto square = static_cast<size_t>(kFp8Square);
  PENSTOCK_CHECK(codes.size() == values.size());
  PENSTOCK_CHECK(scales.size() == (values.size() + square - 1) / square * number_bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    const std::byte* at = scales.data() + i / square * number_bytes;
    float scale = 0;
    if (dtype == DType::kF32) {
      scale = load_block<float>(at);
    } else {
      const auto half = load_block<uint16_t>(at);
      scale = dtype == DType::kBF16 ? bf16_to_f32(half) : f16_to_f32(half);
    }
    values[i] = e4m3_to_f32(std::to_integer<uint8_t>(codes[i])) * scale;
  }
}

}  // namespace penstock
