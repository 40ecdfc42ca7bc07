#include "compute/panel.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "compute/quantiser.h"

namespace penstock {
namespace {

constexpr size_t kRows = kPanelRows;

size_t words_of(DType dtype) {
  return kGroupLength * static_cast<size_t>(bits_of(dtype)) / 32;
}

// Bits [first, first + count) of the code of column c lie at `shift` of word[`word`].
struct BitPlace {
  size_t word;
  int shift;
};

BitPlace low_bits_place(DType dtype, size_t c) {
  if (dtype == DType::kQ3) return {c / 16, static_cast<int>(c % 16) * 2};
  const size_t per_word = 32 / static_cast<size_t>(bits_of(dtype));
  return {c / per_word, static_cast<int>(c % per_word) * bits_of(dtype)};
}

BitPlace q3_high_bit_place(size_t c) {
  const size_t w = c / 16;
  const size_t pair = c % 16 / 2;
  return {4 + w / 2, static_cast<int>(4 * pair + 2 * (w % 2) + c % 2)};
}

uint32_t code_at(DType dtype, const uint32_t* words, size_t row, size_t c) {
  const BitPlace low = low_bits_place(dtype, c);
  const int bits = dtype == DType::kQ3 ? 2 : bits_of(dtype);
  uint32_t code = (words[low.word * kRows + row] >> low.shift) & ((1u << bits) - 1);
  if (dtype == DType::kQ3) {
    const BitPlace high = q3_high_bit_place(c);
    code |= ((words[high.word * kRows + row] >> high.shift) & 1u) << 2;
  }
  return code;
}

void store_codes(DType dtype, const AffineGroup& group, size_t row, uint32_t* words) {
  for (size_t c = 0; c < kGroupLength; ++c) {
    const uint32_t code = group.codes[c];
    const BitPlace low = low_bits_place(dtype, c);
    words[low.word * kRows + row] |= (dtype == DType::kQ3 ? code & 3u : code) << low.shift;
    if (dtype == DType::kQ3) {
      const BitPlace high = q3_high_bit_place(c);
      words[high.word * kRows + row] |= (code >> 2) << high.shift;
    }
  }
}

// One row of one block; `values` has at most 64 values, the rest of the block stays zero.
void store_row(DType dtype, std::span<const float> values, size_t row, std::byte* block) {
  auto* words = reinterpret_cast<uint32_t*>(block);
  if (dtype == DType::kF32) {
    for (size_t c = 0; c < values.size(); ++c) {
      words[c * kRows + row] = std::bit_cast<uint32_t>(values[c]);
    }
    return;
  }
  if (dtype == DType::kBF16) {
    for (size_t c = 0; c < values.size(); ++c) {
      words[c / 2 * kRows + row] |= static_cast<uint32_t>(f32_to_bf16(values[c])) << (16 * (c % 2));
    }
    return;
  }
  put_group(dtype, quantise_group(std::span<const float, kGroupLength>(values), bits_of(dtype)),
            static_cast<int64_t>(row), block);
}

struct Range {
  float minimum, maximum;
};

// Sixteen running ranges, so that the loop has no chain of dependent comparisons.
Range range_of(std::span<const float, kGroupLength> values) {
  std::array<float, 16> low, high;
  low.fill(std::numeric_limits<float>::infinity());
  high.fill(-std::numeric_limits<float>::infinity());
  for (size_t c = 0; c < kGroupLength; c += 16) {
    for (size_t i = 0; i < 16; ++i) {
      const float value = values[c + i];
      low[i] = value < low[i] ? value : low[i];
      high[i] = value > high[i] ? value : high[i];
    }
  }
  return {*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
}

}  // namespace

void put_group(DType dtype, const AffineGroup& group, int64_t row, std::byte* block) {
  auto* words = reinterpret_cast<uint32_t*>(block);
  const auto lane = static_cast<size_t>(row);
  store_codes(dtype, group, lane, words);
  auto* scales = reinterpret_cast<uint16_t*>(words + words_of(dtype) * kRows);
  scales[lane] = group.scale;
  scales[kRows + lane] = group.bias;
}

AffineGroup quantise_group(std::span<const float, kGroupLength> values, int bits) {
  const auto steps = static_cast<float>((1u << bits) - 1u);
  const auto [minimum, maximum] = range_of(values);
  const bool minimum_is_larger = std::fabs(minimum) > std::fabs(maximum);
  const float edge = minimum_is_larger ? minimum : maximum;
  float scale = std::max((maximum - minimum) / steps, 1e-7f);
  if (!minimum_is_larger) scale = -scale;
  // Moves the scale a little so that zero gets a code of its own: edge = scale * a whole number.
  const float edge_code = std::rint(edge / scale);
  float bias = 0;
  if (edge_code != 0) {
    scale = edge / edge_code;
    bias = edge;
  }

  AffineGroup group;
  group.scale = f32_to_bf16(scale);
  group.bias = f32_to_bf16(bias);
  for (size_t c = 0; c < kGroupLength; ++c) {
    const float exact = (values[c] - bias) / scale;
    const float positive = exact > 0 ? exact : 0.0f;  // also where `exact` is not a number
    const float clamped = positive < steps ? positive : steps;
    // Rounds to nearest even: numbers from 2^23 to 2^24 have no bits for a fraction, and the code
    // ends up in the low bits. Clamping first gives the same code, as 0 and `steps` are whole.
    const float shifted = clamped + 0x1p23f;
    group.codes[c] = static_cast<uint8_t>(std::bit_cast<uint32_t>(shifted));
  }
  return group;
}

void make_panels(DType dtype, std::span<const float> values, int64_t rows, int64_t columns,
                 std::span<std::byte> out) {
  PENSTOCK_CHECK(traits_of(dtype).has_panels);
  PENSTOCK_CHECK(rows >= 0 && columns >= 0);
  PENSTOCK_CHECK(std::ssize(values) == rows * columns);
  PENSTOCK_CHECK(std::ssize(out) == panel_bytes(dtype, rows, columns));
  PENSTOCK_CHECK(!is_quantised(dtype) || columns % kGroupColumns == 0);
  std::memset(out.data(), 0, out.size());
  const int64_t blocks = (columns + kGroupColumns - 1) / kGroupColumns;
  for (int64_t row = 0; row < rows; ++row) {
    std::byte* block = out.data() + row / kPanelRows * blocks * block_bytes(dtype);
    for (int64_t c = 0; c < columns; c += kGroupColumns, block += block_bytes(dtype)) {
      const int64_t count = std::min(kGroupColumns, columns - c);
      store_row(dtype,
                values.subspan(static_cast<size_t>(row * columns + c), static_cast<size_t>(count)),
                static_cast<size_t>(row % kPanelRows), block);
    }
  }
}

AffineGroup panel_group(const Matrix& matrix, int64_t row, int64_t block) {
  PENSTOCK_CHECK(is_quantised(matrix.dtype));
  PENSTOCK_CHECK(row >= 0 && row < matrix.rows && block >= 0 && block < matrix.num_blocks());
  const auto lane = static_cast<size_t>(row % kPanelRows);
  const int64_t index = row / kPanelRows * matrix.num_blocks() + block;
  const auto* words =
      reinterpret_cast<const uint32_t*>(matrix.panels + index * block_bytes(matrix.dtype));
  const auto* scales = reinterpret_cast<const uint16_t*>(words + words_of(matrix.dtype) * kRows);
  AffineGroup group;
  group.scale = scales[lane];
  group.bias = scales[kRows + lane];
  for (size_t c = 0; c < kGroupLength; ++c) {
    group.codes[c] = static_cast<uint8_t>(code_at(matrix.dtype, words, lane, c));
  }
  return group;
}

void panel_row(const Matrix& matrix, int64_t row, std::span<float> out) {
  PENSTOCK_CHECK(!matrix.is_coded());
  PENSTOCK_CHECK(row >= 0 && row < matrix.rows);
  PENSTOCK_CHECK(std::ssize(out) == matrix.columns);
  const auto lane = static_cast<size_t>(row % kPanelRows);
  for (int64_t b = 0; b < matrix.num_blocks(); ++b) {
    const auto values = out.subspan(static_cast<size_t>(b) * kGroupLength);
    const size_t count = std::min(kGroupLength, values.size());
    if (is_quantised(matrix.dtype)) {
      const AffineGroup group = panel_group(matrix, row, b);
      const float scale = bf16_to_f32(group.scale);
      const float bias = bf16_to_f32(group.bias);
      // A bf16 times an 8-bit code is exact, so this rounds once, as an fma would.
      for (size_t c = 0; c < count; ++c) values[c] = scale * group.codes[c] + bias;
      continue;
    }
    const int64_t index = row / kPanelRows * matrix.num_blocks() + b;
    const auto* words =
        reinterpret_cast<const uint32_t*>(matrix.panels + index * block_bytes(matrix.dtype));
    for (size_t c = 0; c < count; ++c) {
      const uint32_t pair = words[c / 2 * kRows + lane];
      values[c] = matrix.dtype == DType::kF32
                      ? std::bit_cast<float>(words[c * kRows + lane])
                      : bf16_to_f32(static_cast<uint16_t>(pair >> (16 * (c % 2))));
    }
  }
}

void decode_panels(const Matrix& matrix, int64_t first, int64_t count, std::span<std::byte> out,
                   std::span<float> scratch) {
  PENSTOCK_CHECK(matrix.is_coded() && matrix.dtype == DType::kF32);
  PENSTOCK_CHECK(first >= 0 && first + count <= matrix.num_panels());
  PENSTOCK_CHECK(std::ssize(scratch) >= decode_scratch(matrix.columns));
  const int64_t panel_size = matrix.num_blocks() * block_bytes(DType::kF32);
  PENSTOCK_CHECK(std::ssize(out) == count * panel_size);
  const auto columns = static_cast<size_t>(matrix.columns);
  const std::span<float> stored = scratch.subspan(kRows * columns, columns);
  for (int64_t panel = 0; panel < count; ++panel) {
    const int64_t row = (first + panel) * kPanelRows;
    const auto rows = static_cast<size_t>(std::min(kPanelRows, matrix.rows - row));
    for (size_t r = 0; r < rows; ++r) {
      decode_row(matrix.coded, row + static_cast<int64_t>(r), scratch.subspan(r * columns, columns),
                 stored);
    }
    std::fill_n(scratch.begin() + static_cast<int64_t>(rows * columns), (kRows - rows) * columns,
                0.0f);
    auto* place = reinterpret_cast<float*>(out.data() + panel * panel_size);
    const float* values = scratch.data();
    for (size_t c = 0; c < columns; ++c, place += kRows) {
      for (size_t r = 0; r < kRows; ++r) place[r] = values[r * columns + c];
    }
    const size_t missing = static_cast<size_t>(matrix.num_blocks()) * kGroupLength - columns;
    std::fill_n(place, missing * kRows, 0.0f);
  }
}

}  // namespace penstock
