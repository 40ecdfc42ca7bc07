#include "quant/fp8.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace penstock {
namespace {

constexpr std::array<float, 256> all_values() {
  std::array<float, 256> values = {};
  for (size_t code = 0; code < values.size(); ++code) {
    values[code] = e4m3_to_f32(static_cast<uint8_t>(code));
  }
  return values;
}
constexpr std::array<float, 256> kValues = all_values();

}  // namespace

void decode_fp8_row(std::span<const std::byte> codes, DType dtype,
                    std::span<const std::byte> scales, std::span<float> values) {
  const size_t number_bytes = static_cast<size_t>(bits_of(dtype)) / 8;
  const auto square = static_cast<size_t>(kFp8Square);
  PENSTOCK_CHECK(codes.size() == values.size());
  PENSTOCK_CHECK(scales.size() == (values.size() + square - 1) / square * number_bytes);
  for (size_t begin = 0; begin < values.size(); begin += square) {
    const float scale = load_float(dtype, scales.data(), begin / square);
    const size_t end = std::min(begin + square, values.size());
    for (size_t i = begin; i < end; ++i) {
      values[i] = kValues[std::to_integer<size_t>(codes[i])] * scale;
    }
  }
}

}  // namespace penstock
