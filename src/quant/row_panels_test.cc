// Rows side by side can be had back, and the whole numbers in them are the weights.

#include "quant/row_panels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "quant/block_decode.h"
#include "quant/code_groups.h"
#include "quant/fp8.h"
#include "quant/number_check.h"

namespace penstock {
namespace {

constexpr int64_t kColumns = 768;

std::vector<Coding> codings() {
  std::vector<Coding> list;
  for (int type = 0; type < kNumBlockTypes; ++type) {
    if (is_decodable(static_cast<BlockType>(type))) {
      list.push_back({.block = static_cast<BlockType>(type)});
    }
  }
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int64_t group : {32, 64, 128, 256}) {
      for (const DType scales : {DType::kBF16, DType::kF32}) {
        list.push_back({.kind = Coding::Kind::kAffine, .affine = {bits, group, scales}});
      }
    }
  }
  list.push_back({.kind = Coding::Kind::kMlxMxfp4});
  list.push_back({.kind = Coding::Kind::kFp8});
  return list;
}

std::vector<std::byte> random_bytes(std::mt19937& random, uint64_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0xff);
  return bytes;
}

TEST(RowPanels, rows_come_back_and_nothing_is_added) {
  std::mt19937 random(3);
  int laid_out = 0;
  for (const Coding& coding : codings()) {
    if (!has_row_panels(coding, kColumns)) continue;
    ++laid_out;
    const RowBytes row = row_bytes(coding, kColumns), panel = row_panel_bytes(coding, kColumns);
    for (const CodedPlane plane : kCodedPlanes) {
      const uint64_t size = bytes_of(row, plane);
      EXPECT_EQ(bytes_of(panel, plane), size * kPanelRows) << name_of(coding);
      if (size == 0) continue;
      // At an odd address, with a gap behind each row.
      const auto bytes = random_bytes(random, 1 + (size + 3) * kPanelRows);
      for (const int64_t count : {int64_t{16}, int64_t{5}}) {
        std::vector<std::byte> out(size * kPanelRows, std::byte{0x5a});
        make_row_panel(coding, plane, kColumns,
                       {.rows = bytes.data() + 1, .stride = size + 3, .count = count}, out);
        for (int64_t r = 0; r < count; ++r) {
          std::vector<std::byte> back(size);
          row_of_panel(coding, plane, kColumns, out.data(), static_cast<int>(r), back);
          const std::byte* from = bytes.data() + 1 + static_cast<uint64_t>(r) * (size + 3);
          EXPECT_TRUE(std::equal(back.begin(), back.end(), from)) << name_of(coding) << " " << r;
        }
      }
    }
  }
  EXPECT_EQ(laid_out, 19 + 48 + 2);
}

TEST(RowPanels, lanes_without_a_row_are_zeros) {
  std::mt19937 random(4);
  const Coding coding = {.block = BlockType::kQ8_0};
  const auto bytes = random_bytes(random, row_bytes(coding, kColumns).codes);
  std::vector<std::byte> out(row_panel_bytes(coding, kColumns).codes, std::byte{0x5a});
  make_row_panel(coding, CodedPlane::kCodes, kColumns, {.rows = bytes.data(), .count = 1}, out);
  for (size_t word = 0; word < out.size() / 64; ++word) {
    for (size_t i = 4; i < 64; ++i) EXPECT_EQ(out[word * 64 + i], std::byte{0});
  }
}

TEST(RowPanels, rows_that_share_scales_get_their_own) {
  const Coding coding = {.kind = Coding::Kind::kFp8};
  std::mt19937 random(5);
  const uint64_t size = row_bytes(coding, kColumns).scales;
  const auto file = random_bytes(random, size * 2);
  std::vector<std::byte> out(size * kPanelRows);
  make_row_panel(coding, CodedPlane::kScales, kColumns,
                 {.rows = file.data(), .stride = size, .count = 16, .first = 120, .rows_each = 128},
                 out);
  for (int r = 0; r < 16; ++r) {
    std::vector<std::byte> back(size);
    row_of_panel(coding, CodedPlane::kScales, kColumns, out.data(), r, back);
    EXPECT_TRUE(std::equal(back.begin(), back.end(), file.data() + (r < 8 ? 0 : size))) << r;
  }
}

TEST(RowPanels, widths_and_groups_that_do_not_fit) {
  EXPECT_FALSE(has_row_panels({.block = BlockType::kQ8_0}, 96));
  EXPECT_TRUE(has_row_panels({.block = BlockType::kQ8_0}, 128));
  EXPECT_FALSE(has_row_panels({.block = BlockType::kIq1S}, 256));
  EXPECT_FALSE(has_row_panels({.block = BlockType::kF32}, 256));
  EXPECT_FALSE(has_row_panels({.kind = Coding::Kind::kAffine, .affine = {4, 512}}, 1024));
  EXPECT_FALSE(has_row_panels({.kind = Coding::Kind::kAffine, .affine = {4, 32}}, 96));
}

TEST(NumberCheck, tells_the_first_column_whose_weight_is_no_number) {
  std::mt19937 random(7);
  for (const Coding& coding : codings()) {
    const RowBytes row = row_bytes(coding, kColumns);
    // Scales in halves and exponents beyond f32 aside, a row is all numbers or has one that is told.
    const bool is_certain =
        coding.kind == Coding::Kind::kBlocks && coding.block != BlockType::kMxfp4;
    int with = 0, without = 0;
    for (int round = 0; round < 200; ++round) {
      const auto codes = random_bytes(random, row.codes), scales = random_bytes(random, row.scales),
                 biases = random_bytes(random, row.biases);
      std::vector<float> values(kColumns);
      decode_row(coding, codes, scales, biases, values);
      int64_t first = kColumns;
      for (const auto& [plane, bytes] :
           {std::pair{CodedPlane::kCodes, &codes}, std::pair{CodedPlane::kScales, &scales},
            std::pair{CodedPlane::kBiases, &biases}}) {
        const int64_t column = find_no_number(coding, plane, *bytes);
        if (column >= 0) first = std::min(first, column);
      }
      const auto bad = std::ranges::find_if(values, [](float v) { return !std::isfinite(v); });
      const int64_t first_bad = bad - values.begin();
      (first < kColumns ? with : without) += 1;
      if (is_certain) {
        EXPECT_EQ(first, first_bad) << name_of(coding);
      }
      if (first < kColumns) {
        EXPECT_FALSE(std::isfinite(values[static_cast<size_t>(first)])) << name_of(coding);
      }
    }
    const bool has_any_exponent =
        coding == Coding{.block = BlockType::kMxfp4} || coding.kind == Coding::Kind::kMlxMxfp4;
    EXPECT_EQ(with > 0, !has_any_exponent) << name_of(coding);
    EXPECT_EQ(with + without, 200);
  }
}

TEST(CodeGroups, scale_times_code_plus_minimum_is_the_weight) {
  std::mt19937 random(6);
  for (const Coding& coding : codings()) {
    const int64_t width = code_group_columns(coding);
    if (width == 0) continue;
    const RowBytes row = row_bytes(coding, kColumns);
    const auto codes = random_bytes(random, row.codes), scales = random_bytes(random, row.scales),
               biases = random_bytes(random, row.biases);
    std::vector<float> values(kColumns);
    decode_row(coding, codes, scales, biases, values);
    for (int64_t index = 0; index < kColumns / width; ++index) {
      const CodeGroup group = code_group(coding, codes, scales, biases, index);
      EXPECT_TRUE(has_minima(coding) || group.minimum == 0) << name_of(coding);
      for (int64_t c = 0; c < width; ++c) {
        const float weight = group.scale * group.codes[static_cast<size_t>(c)] + group.minimum;
        const float value = values[static_cast<size_t>(index * width + c)];
        EXPECT_TRUE(weight == value || (std::isnan(weight) && std::isnan(value)))
            << name_of(coding) << " column " << index * width + c;
      }
    }
  }
}

}  // namespace
}  // namespace penstock
