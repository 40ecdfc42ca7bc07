#include "quant/legacy_blocks.h"

#include "base/dtype.h"
#include "quant/block_load.h"

namespace penstock {
namespace {

constexpr int kHalf = 16;

int nibble(const uint8_t* low, int i) {
  return i < kHalf ? low[i] & 15 : low[i - kHalf] >> 4;
}
int fifth_bit(const uint8_t* high, int i) {
  return (high[i / 8] >> (i % 8) & 1) << 4;
}

}  // namespace

void decode_q4_0(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ4_0>(bytes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 2 * kHalf; ++i) out[i] = d * static_cast<float>(nibble(block.low, i) - 8);
}

void decode_q4_1(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ4_1>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int i = 0; i < 2 * kHalf; ++i) out[i] = d * static_cast<float>(nibble(block.low, i)) + m;
}

void decode_q5_0(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ5_0>(bytes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 2 * kHalf; ++i) {
    out[i] = d * static_cast<float>((nibble(block.low, i) | fifth_bit(block.high, i)) - 16);
  }
}

void decode_q5_1(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ5_1>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int i = 0; i < 2 * kHalf; ++i) {
    out[i] = d * static_cast<float>(nibble(block.low, i) | fifth_bit(block.high, i)) + m;
  }
}

void decode_q8_0(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ8_0>(bytes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 2 * kHalf; ++i) out[i] = d * static_cast<float>(block.q[i]);
}

}  // namespace penstock
