#include "quant/grid_blocks.h"

#include <array>
#include <bit>

#include "base/dtype.h"
#include "quant/block_load.h"

namespace penstock {
namespace {

// One row a number: element j of a row of eight in bits 2j, 2j+1, of a row of four in 3j to 3j+2.
#include "quant/grids.inc"

constexpr std::array<uint8_t, 4> kTwoBitValues = {8, 25, 43, 0};
constexpr std::array<uint8_t, 8> kIq3XxsValues = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr std::array<uint8_t, 8> kIq3SValues = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr float kDelta = 0.125f;

// Four neighbours of a row: `bits` of it for each, from neighbour `first` on.
template <size_t kValues>
constexpr uint32_t four_of(uint32_t row, const std::array<uint8_t, kValues>& values, int first) {
  constexpr int kBits = kValues == 4 ? 2 : 3;
  uint32_t four = 0;
  for (int j = 0; j < 4; ++j) {
    four |= uint32_t{values[row >> (kBits * (first + j)) & (kValues - 1)]} << (8 * j);
  }
  return four;
}
template <size_t kRows>
constexpr std::array<uint32_t, 2 * kRows> eights_of(const uint16_t (&grid)[kRows]) {
  std::array<uint32_t, 2 * kRows> words = {};
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] = four_of(grid[i / 2], kTwoBitValues, i % 2 == 0 ? 0 : 4);
  }
  return words;
}
template <size_t kRows>
constexpr std::array<uint32_t, kRows> fours_of(const uint16_t (&grid)[kRows],
                                               const std::array<uint8_t, 8>& values) {
  std::array<uint32_t, kRows> words = {};
  for (size_t i = 0; i < kRows; ++i) words[i] = four_of(grid[i], values, 0);
  return words;
}

// Eight signs of a code of seven: the eighth makes the number of minus signs even.
uint32_t signs_of(uint32_t code) {
  code &= 127;
  return code | static_cast<uint32_t>(std::popcount(code) & 1) << 7;
}

// Neighbours first to first + 3 of a group, with the signs of the low four bits.
void put_four(uint32_t four, uint32_t signs, int first, GridGroup& group) {
  for (int j = 0; j < 4; ++j) {
    const auto value = static_cast<int8_t>(four >> (8 * j) & 255);
    group.codes[static_cast<size_t>(first + j)] =
        static_cast<int8_t>((signs >> j & 1) != 0 ? -value : value);
  }
}
template <size_t kWords>
void put_eight(const std::array<uint32_t, kWords>& grid, size_t index, uint32_t signs, int first,
               GridGroup& group) {
  put_four(grid[2 * index], signs, first, group);
  put_four(grid[2 * index + 1], signs >> 4, first + 4, group);
}

void put_ternary(uint16_t row, float delta, float scale, float* out) {
  for (int j = 0; j < 8; ++j) {
    out[j] = scale * (static_cast<float>((row >> (2 * j) & 3) - 1) + delta);
  }
}

uint32_t word(uint16_t low, uint16_t high) {
  return low | static_cast<uint32_t>(high) << 16;
}

float with_half(uint32_t scale) {
  return static_cast<float>(scale) + 0.5f;
}

// Two entries to a group, and to a nibble of the scales.
float scale_of_two(uint16_t d, const uint8_t (&scales)[8], int group) {
  const uint32_t s = scales[group / 2] >> (4 * (group % 2)) & 15u;
  return f16_to_f32(d) * with_half(s) * 0.25f;
}

template <class Block>
void decode(const std::byte* bytes, GridGroup (*group_of)(const Block&, int), int columns,
            float* out) {
  const auto block = load_block<Block>(bytes);
  for (int group = 0; group < 256 / columns; ++group) {
    const GridGroup made = group_of(block, group);
    for (int i = 0; i < columns; ++i) {
      *out++ = made.scale * static_cast<float>(made.codes[static_cast<size_t>(i)]);
    }
  }
}

}  // namespace

const std::array<uint32_t, 2 * 256> kIq2XxsWords = eights_of(kIq2XxsGrid);
const std::array<uint32_t, 2 * 512> kIq2XsWords = eights_of(kIq2XsGrid);
const std::array<uint32_t, 2 * 1024> kIq2SWords = eights_of(kIq2SGrid);
const std::array<uint32_t, 256> kIq3XxsWords = fours_of(kIq3XxsGrid, kIq3XxsValues);
const std::array<uint32_t, 512> kIq3SWords = fours_of(kIq3SGrid, kIq3SValues);

GridGroup iq2_xxs_group(const BlockIq2Xxs& block, int group) {
  const uint16_t* q = block.q + 4 * group;
  const uint32_t indices = word(q[0], q[1]);
  const uint32_t tail = word(q[2], q[3]);
  GridGroup made{.scale = f16_to_f32(block.d) * with_half(tail >> 28) * 0.25f};
  for (int l = 0; l < 4; ++l) {
    put_eight(kIq2XxsWords, indices >> (8 * l) & 255, signs_of(tail >> (7 * l)), 8 * l, made);
  }
  return made;
}

GridGroup iq2_xs_group(const BlockIq2Xs& block, int group) {
  GridGroup made{.scale = scale_of_two(block.d, block.scales, group)};
  for (int l = 0; l < 2; ++l) {
    const uint32_t q = block.q[2 * group + l];
    put_eight(kIq2XsWords, q & 511, signs_of(q >> 9), 8 * l, made);
  }
  return made;
}

GridGroup iq2_s_group(const BlockIq2S& block, int group) {
  GridGroup made{.scale = scale_of_two(block.d, block.scales, group)};
  for (int l = 0; l < 2; ++l) {
    const int e = 2 * group + l;
    const uint32_t high = block.high[e / 4] >> (2 * (e % 4)) & 3u;
    put_eight(kIq2SWords, block.q[e] | high << 8, block.signs[e], 8 * l, made);
  }
  return made;
}

GridGroup iq3_xxs_group(const BlockIq3Xxs& block, int group) {
  const uint32_t tail = word(block.tail[2 * group], block.tail[2 * group + 1]);
  GridGroup made{.scale = f16_to_f32(block.d) * with_half(tail >> 28) * 0.5f};
  for (int l = 0; l < 8; ++l) {
    const uint32_t signs = signs_of(tail >> (7 * (l / 2))) >> (4 * (l % 2));
    put_four(kIq3XxsWords[block.q[8 * group + l]], signs, 4 * l, made);
  }
  return made;
}

GridGroup iq3_s_group(const BlockIq3S& block, int group) {
  const int s = block.scales[group / 2] >> (4 * (group % 2)) & 15;
  GridGroup made{.scale = f16_to_f32(block.d) * static_cast<float>(1 + 2 * s)};
  for (int l = 0; l < 8; ++l) {
    const uint32_t high = block.high[group] >> l & 1u;
    const uint32_t signs = static_cast<uint32_t>(block.signs[4 * group + l / 2]) >> (4 * (l % 2));
    put_four(kIq3SWords[block.q[8 * group + l] | high << 8], signs, 4 * l, made);
  }
  return made;
}

void decode_iq2_xxs(const std::byte* block, float* out) {
  decode(block, iq2_xxs_group, 32, out);
}
void decode_iq2_xs(const std::byte* block, float* out) {
  decode(block, iq2_xs_group, 16, out);
}
void decode_iq2_s(const std::byte* block, float* out) {
  decode(block, iq2_s_group, 16, out);
}
void decode_iq3_xxs(const std::byte* block, float* out) {
  decode(block, iq3_xxs_group, 32, out);
}
void decode_iq3_s(const std::byte* block, float* out) {
  decode(block, iq3_s_group, 32, out);
}

void decode_iq1_s(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq1S>(bytes);
  const float d = f16_to_f32(block.d);
  for (int group = 0; group < 8; ++group) {
    const uint32_t high = block.high[group];
    const float scale = d * static_cast<float>(2 * (high >> 12 & 7) + 1);
    const float delta = (high & 0x8000u) != 0 ? -kDelta : kDelta;
    for (int l = 0; l < 4; ++l, out += 8) {
      put_ternary(kIq1Grid[block.q[4 * group + l] | (high >> (3 * l) & 7) << 8], delta, scale, out);
    }
  }
}

void decode_iq1_m(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq1M>(bytes);
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(block.scales[i] >> 12) << (4 * i);
  const float d = f16_to_f32(static_cast<uint16_t>(bits));
  for (int e = 0; e < 32; ++e, out += 8) {
    const int m = e / 2;
    const uint32_t s = block.scales[m / 4] >> (3 * (m % 4)) & 7u;
    const uint32_t high = block.high[e / 2] >> (4 * (e % 2)) & 15u;
    const float delta = (high & 8) != 0 ? -kDelta : kDelta;
    put_ternary(kIq1Grid[block.q[e] | (high & 7) << 8], delta, d * static_cast<float>(2 * s + 1),
                out);
  }
}

}  // namespace penstock
