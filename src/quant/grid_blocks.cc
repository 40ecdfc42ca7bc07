#include "quant/grid_blocks.h"

#include <array>
#include <bit>

#include "base/dtype.h"
#include "quant/block_load.h"

namespace penstock {
namespace {

// One row a number: element j of a row of eight in bits 2j, 2j+1, of a row of four in 3j to 3j+2.
#include "quant/grids.inc"

constexpr std::array<float, 4> kTwoBitValues = {8, 25, 43, 0};
constexpr std::array<float, 8> kIq3XxsValues = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr std::array<float, 8> kIq3SValues = {1, 3, 5, 7, 9, 11, 13, 15};
constexpr float kDelta = 0.125f;

float signed_if(float value, uint32_t signs, int bit) {
  return (signs >> bit & 1) != 0 ? -value : value;
}

// Eight signs of a code of seven: the eighth makes the number of minus signs even.
uint32_t signs_of(uint32_t code) {
  code &= 127;
  return code | static_cast<uint32_t>(std::popcount(code) & 1) << 7;
}

void put_eight(uint16_t row, uint32_t signs, float scale, float* out) {
  for (int j = 0; j < 8; ++j) {
    out[j] = signed_if(scale * kTwoBitValues[row >> (2 * j) & 3], signs, j);
  }
}

void put_four(uint16_t row, const std::array<float, 8>& values, uint32_t signs, float scale,
              float* out) {
  for (int j = 0; j < 4; ++j) out[j] = signed_if(scale * values[row >> (3 * j) & 7], signs, j);
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

}  // namespace

void decode_iq2_xxs(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq2Xxs>(bytes);
  const float d = f16_to_f32(block.d);
  for (int group = 0; group < 8; ++group) {
    const uint16_t* q = block.q + 4 * group;
    const uint32_t indices = word(q[0], q[1]);
    const uint32_t tail = word(q[2], q[3]);
    const float scale = d * with_half(tail >> 28) * 0.25f;
    for (int l = 0; l < 4; ++l, out += 8) {
      put_eight(kIq2XxsGrid[indices >> (8 * l) & 255], signs_of(tail >> (7 * l)), scale, out);
    }
  }
}

void decode_iq2_xs(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq2Xs>(bytes);
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < 32; ++e, out += 8) {
    const uint32_t s = block.scales[e / 4] >> (4 * (e / 2 % 2)) & 15u;
    const uint32_t q = block.q[e];
    put_eight(kIq2XsGrid[q & 511], signs_of(q >> 9), d * with_half(s) * 0.25f, out);
  }
}

void decode_iq2_s(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq2S>(bytes);
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < 32; ++e, out += 8) {
    const uint32_t s = block.scales[e / 4] >> (4 * (e / 2 % 2)) & 15u;
    const uint32_t high = block.high[e / 4] >> (2 * (e % 4)) & 3u;
    put_eight(kIq2SGrid[block.q[e] | high << 8], block.signs[e], d * with_half(s) * 0.25f, out);
  }
}

void decode_iq3_xxs(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq3Xxs>(bytes);
  const float d = f16_to_f32(block.d);
  for (int group = 0; group < 8; ++group) {
    const uint32_t tail = word(block.tail[2 * group], block.tail[2 * group + 1]);
    const float scale = d * with_half(tail >> 28) * 0.5f;
    for (int l = 0; l < 8; ++l, out += 4) {
      const uint32_t signs = signs_of(tail >> (7 * (l / 2))) >> (4 * (l % 2));
      put_four(kIq3XxsGrid[block.q[8 * group + l]], kIq3XxsValues, signs, scale, out);
    }
  }
}

void decode_iq3_s(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq3S>(bytes);
  const float d = f16_to_f32(block.d);
  for (int group = 0; group < 8; ++group) {
    const int s = block.scales[group / 2] >> (4 * (group % 2)) & 15;
    const float scale = d * static_cast<float>(1 + 2 * s);
    for (int l = 0; l < 8; ++l, out += 4) {
      const uint32_t high = block.high[group] >> l & 1u;
      const uint32_t signs = static_cast<uint32_t>(block.signs[4 * group + l / 2]) >> (4 * (l % 2));
      put_four(kIq3SGrid[block.q[8 * group + l] | high << 8], kIq3SValues, signs, scale, out);
    }
  }
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
