#include "compute/panel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "compute/test_values.h"

namespace penstock {
namespace {

using test::group_of;
using test::OwnedMatrix;
using test::Values;

float value_of(const AffineGroup& group, size_t c) {
  return bf16_to_f32(group.scale) * group.codes[c] + bf16_to_f32(group.bias);
}

TEST(Quantiser, errors_are_at_most_half_a_step_and_the_rounding_of_scale_and_bias) {
  Values source(1);
  for (const int bits : {2, 3, 4, 8}) {
    const auto steps = static_cast<float>((1 << bits) - 1);
    for (int round = 0; round < 200; ++round) {
      const std::vector<float> values = source.normal(kGroupColumns, 0.05f);
      const AffineGroup group = quantise_group(group_of(values), bits);
      const float scale = std::fabs(bf16_to_f32(group.scale));
      const float bias = std::fabs(bf16_to_f32(group.bias));
      // The scale was moved to give zero a code, so the far end may be cut by half a step more.
      const float bound = scale + (bias + steps * scale) * 0x1p-8f;
      for (size_t c = 0; c < values.size(); ++c) {
        EXPECT_LE(std::fabs(value_of(group, c) - values[c]), bound);
      }
    }
  }
}

TEST(Quantiser, zero_is_a_value_of_every_group_that_has_both_signs) {
  Values source(2);
  for (const int bits : {3, 4, 8}) {
    std::vector<float> values = source.normal(kGroupColumns);
    values[17] = 0;
    const AffineGroup group = quantise_group(group_of(values), bits);
    EXPECT_LE(std::fabs(value_of(group, 17)), std::fabs(bf16_to_f32(group.bias)) * 0x1p-7f);
  }
}

TEST(Quantiser, the_end_of_larger_magnitude_has_code_zero_and_the_bias) {
  std::vector<float> values(kGroupColumns, 0.25f);
  values[3] = -2;
  values[60] = 1;
  const AffineGroup group = quantise_group(group_of(values), 4);
  EXPECT_EQ(group.codes[3], 0);
  EXPECT_EQ(bf16_to_f32(group.bias), -2);
  // (1 - -2) / 15 = 0.2; -2 / 0.2 = -10 exactly, so the scale stays 0.2, as bf16.
  EXPECT_EQ(group.scale, f32_to_bf16(0.2f));
  EXPECT_EQ(group.codes[60], 15);
  EXPECT_EQ(group.codes[0], 11);  // (0.25 + 2) / 0.2 = 11.25
}

TEST(Quantiser, scale_and_bias_are_rounded_only_when_they_are_stored) {
  // From 1.001 to 2.003: the scale -0.0668 moves to 2.003 / -30 = -0.066767. The value 1.0329 lies
  // 14.53 of these steps from 2.003, but 14.46 of the stored -0.066895 from the stored 2.0.
  std::vector<float> values(kGroupColumns, 2.003f);
  values[0] = 1.001f;
  values[1] = 1.0329f;
  const AffineGroup group = quantise_group(group_of(values), 4);
  EXPECT_EQ(bf16_to_f32(group.scale), -0.06689453125f);
  EXPECT_EQ(bf16_to_f32(group.bias), 2.0f);
  EXPECT_EQ(group.codes[1], 15);
}

TEST(Quantiser, a_constant_group_is_kept_to_bf16) {
  for (const float value : {0.0f, 1.5f, -3.0f, 1e-9f}) {
    const std::vector<float> values(kGroupColumns, value);
    for (const int bits : {2, 3, 4, 8}) {
      const AffineGroup group = quantise_group(group_of(values), bits);
      for (size_t c = 0; c < values.size(); ++c) {
        EXPECT_NEAR(value_of(group, c), value, 1e-7f + std::fabs(value) * 0x1p-8f);
      }
    }
  }
}

TEST(Quantiser, values_halfway_between_two_codes_go_to_the_even_one) {
  std::vector<float> values(kGroupColumns, 0.0f);
  values[0] = -15;  // bias -15, scale 1
  values[1] = -15 + 0.5f;
  values[2] = -15 + 1.5f;
  values[3] = -15 + 14.5f;
  const AffineGroup group = quantise_group(group_of(values), 4);
  EXPECT_EQ(bf16_to_f32(group.scale), 1);
  EXPECT_THAT(std::span(group.codes).first(4), testing::ElementsAre(0, 0, 2, 14));
}

TEST(Quantiser, values_that_are_no_numbers_get_some_code_of_the_right_size) {
  std::vector<float> values(kGroupColumns, 1.0f);
  values[0] = NAN;
  values[1] = INFINITY;
  values[2] = -INFINITY;
  for (const int bits : {2, 3, 4}) {
    const AffineGroup group = quantise_group(group_of(values), bits);
    EXPECT_LT(*std::max_element(group.codes, group.codes + kGroupColumns), 1 << bits);
  }
}

TEST(Panels, plain_rows_come_back_exactly_or_rounded_to_bf16) {
  Values source(3);
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {16, 64}, {37, 100}}) {
    const std::vector<float> values = source.normal(rows * columns);
    const OwnedMatrix f32(DType::kF32, values, rows, columns);
    const OwnedMatrix bf16(DType::kBF16, values, rows, columns);
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      const float* expected = values.data() + r * columns;
      panel_row(f32.matrix, r, row);
      EXPECT_TRUE(std::equal(row.begin(), row.end(), expected));
      panel_row(bf16.matrix, r, row);
      for (size_t c = 0; c < row.size(); ++c) {
        EXPECT_EQ(row[c], bf16_to_f32(f32_to_bf16(expected[c])));
      }
    }
  }
}

TEST(Panels, quantised_rows_are_the_groups_of_the_quantiser) {
  Values source(4);
  const int64_t rows = 19, columns = 192;
  const std::vector<float> values = source.normal(rows * columns);
  for (const DType dtype : {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    const OwnedMatrix owned(dtype, values, rows, columns);
    std::vector<float> row(columns);
    for (int64_t r = 0; r < rows; ++r) {
      panel_row(owned.matrix, r, row);
      for (int64_t block = 0; block < columns / kGroupColumns; ++block) {
        const auto first = static_cast<size_t>(r * columns + block * kGroupColumns);
        const std::vector<float> group_values(values.begin() + first,
                                              values.begin() + first + kGroupColumns);
        const AffineGroup expected = quantise_group(group_of(group_values), bits_of(dtype));
        const AffineGroup stored = panel_group(owned.matrix, r, block);
        EXPECT_EQ(stored.scale, expected.scale);
        EXPECT_EQ(stored.bias, expected.bias);
        EXPECT_THAT(std::span(stored.codes), testing::ElementsAreArray(expected.codes));
        for (size_t c = 0; c < kGroupColumns; ++c) {
          EXPECT_EQ(row[static_cast<size_t>(block) * kGroupColumns + c], value_of(expected, c));
        }
      }
    }
  }
}

// The layout is written to disk, so it is pinned down bit by bit.
TEST(Panels, codes_lie_where_the_header_says) {
  Values source(5);
  for (const DType dtype : {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    const OwnedMatrix owned(dtype, source, 16, 64);
    const auto* words = reinterpret_cast<const uint32_t*>(owned.matrix.panels);
    for (size_t r = 0; r < 16; ++r) {
      const AffineGroup group = panel_group(owned.matrix, static_cast<int64_t>(r), 0);
      const auto bits_at = [&](size_t word, size_t shift, uint32_t count) {
        return words[word * 16 + r] >> shift & ((1u << count) - 1);
      };
      for (size_t c = 0; c < 64; ++c) {
        uint32_t code = 0;
        switch (dtype) {
          case DType::kQ8: code = bits_at(c / 4, 8 * (c % 4), 8); break;
          case DType::kQ4: code = bits_at(c / 8, 4 * (c % 8), 4); break;
          case DType::kQ2: code = bits_at(c / 16, 2 * (c % 16), 2); break;
          default: {
            const size_t v = c / 16, i = c % 16 / 2, e = c % 2;
            code = bits_at(v, 2 * (c % 16), 2) | bits_at(4 + v / 2, 4 * i + 2 * (v % 2) + e, 1)
                                                     << 2;
          }
        }
        EXPECT_EQ(code, group.codes[c]) << name_of(dtype) << " row " << r << " column " << c;
      }
      const auto* scales = reinterpret_cast<const uint16_t*>(
          owned.matrix.panels + block_bytes(dtype) - 2 * 16 * sizeof(uint16_t));
      EXPECT_EQ(scales[r], group.scale);
      EXPECT_EQ(scales[16 + r], group.bias);
    }
  }
}

TEST(Panels, missing_rows_and_columns_are_zeros) {
  const std::vector<float> ones(3 * 70, 1.0f);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const OwnedMatrix owned(dtype, ones, 3, 70);
    const auto* words = reinterpret_cast<const uint32_t*>(owned.matrix.panels);
    const int64_t per_word = 32 / bits_of(dtype);
    int64_t set = 0;
    for (int64_t i = 0; i < panel_bytes(dtype, 3, 70) / 4; ++i) set += words[i] != 0;
    EXPECT_EQ(set, 3 * 70 / per_word);
  }
}

TEST(Panels, sizes_are_those_of_the_header) {
  EXPECT_EQ(block_bytes(DType::kF32), 4096);
  EXPECT_EQ(block_bytes(DType::kBF16), 2048);
  EXPECT_EQ(block_bytes(DType::kQ8), 1088);
  EXPECT_EQ(block_bytes(DType::kQ4), 576);
  EXPECT_EQ(block_bytes(DType::kQ3), 448);
  EXPECT_EQ(block_bytes(DType::kQ2), 320);
  EXPECT_EQ(panel_bytes(DType::kQ4, 17, 128), 2 * 2 * 576);
}

}  // namespace
}  // namespace penstock
