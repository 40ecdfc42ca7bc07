#include "quant/k_blocks.h"

#include "base/dtype.h"
#include "quant/block_load.h"

namespace penstock {
namespace {

// Of Q3_K, without its offset of 32.
int q3_k_scale(const uint8_t scales[12], int group) {
  const int low = scales[group % 8] >> (4 * (group / 8)) & 15;
  const int high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
  return low | high << 4;
}

}  // namespace

ScaleMin k_scale_min(const uint8_t scales[12], int group) {
  if (group < 4) {
    return {static_cast<uint8_t>(scales[group] & 63), static_cast<uint8_t>(scales[4 + group] & 63)};
  }
  const int both = scales[4 + group];
  return {static_cast<uint8_t>((both & 15) | scales[group - 4] >> 6 << 4),
          static_cast<uint8_t>(both >> 4 | scales[group] >> 6 << 4)};
}

// Of all types: neighbours that share a scale in one loop, which compilers turn into vectors.

void decode_q2_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ2K>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int group = 0; group < kSuperBlock / 16; ++group, out += 16) {
    const float scale = d * static_cast<float>(block.scales[group] & 15);
    const float low = m * static_cast<float>(block.scales[group] >> 4);
    const uint8_t* q = block.q + 32 * (group / 8) + 16 * (group % 2);
    const int shift = 2 * (group / 2 % 4);
    for (int j = 0; j < 16; ++j) out[j] = scale * static_cast<float>(q[j] >> shift & 3) - low;
  }
}

void decode_q3_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ3K>(bytes);
  const float d = f16_to_f32(block.d);
  for (int group = 0; group < kSuperBlock / 16; ++group, out += 16) {
    const float scale = d * static_cast<float>(q3_k_scale(block.scales, group) - 32);
    const int half = group / 8, k = group / 2 % 4;
    const uint8_t* low = block.low + 32 * half + 16 * (group % 2);
    const uint8_t* high = block.high + 16 * (group % 2);
    for (int j = 0; j < 16; ++j) {
      const int q = (low[j] >> (2 * k) & 3) | (high[j] >> (4 * half + k) & 1) << 2;
      out[j] = scale * static_cast<float>(q - 4);
    }
  }
}

void decode_q4_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ4K>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int group = 0; group < kSuperBlock / 32; ++group, out += 32) {
    const ScaleMin both = k_scale_min(block.scales, group);
    const float scale = d * static_cast<float>(both.scale);
    const float low = m * static_cast<float>(both.min);
    const uint8_t* q = block.q + 32 * (group / 2);
    const int shift = 4 * (group % 2);
    for (int j = 0; j < 32; ++j) out[j] = scale * static_cast<float>(q[j] >> shift & 15) - low;
  }
}

void decode_q5_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ5K>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int group = 0; group < kSuperBlock / 32; ++group, out += 32) {
    const ScaleMin both = k_scale_min(block.scales, group);
    const float scale = d * static_cast<float>(both.scale);
    const float minimum = m * static_cast<float>(both.min);
    const uint8_t* low = block.low + 32 * (group / 2);
    const int shift = 4 * (group % 2);
    for (int j = 0; j < 32; ++j) {
      const int q = (low[j] >> shift & 15) | (block.high[j] >> group & 1) << 4;
      out[j] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void decode_q6_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ6K>(bytes);
  const float d = f16_to_f32(block.d);
  for (int group = 0; group < kSuperBlock / 16; ++group, out += 16) {
    const float scale = d * static_cast<float>(block.scales[group]);
    const int half = group / 8, k = group / 2 % 4, first = 16 * (group % 2);
    const uint8_t* low = block.low + 64 * half + 32 * (k % 2) + first;
    const uint8_t* high = block.high + 32 * half + first;
    for (int j = 0; j < 16; ++j) {
      const int q = (low[j] >> (4 * (k / 2)) & 15) | (high[j] >> (2 * k) & 3) << 4;
      out[j] = scale * static_cast<float>(q - 32);
    }
  }
}

}  // namespace penstock
