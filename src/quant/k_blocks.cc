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

void decode_q2_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ2K>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int i = 0; i < kSuperBlock; ++i) {
    const int half = i / 128, k = i / 32 % 4, j = i % 32;
    const int scales = block.scales[i / 16];
    const int q = block.q[32 * half + j] >> (2 * k) & 3;
    out[i] = d * static_cast<float>(scales & 15) * static_cast<float>(q) -
             m * static_cast<float>(scales >> 4);
  }
}

void decode_q3_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ3K>(bytes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < kSuperBlock; ++i) {
    const int half = i / 128, k = i / 32 % 4, j = i % 32;
    const int low = block.low[32 * half + j] >> (2 * k) & 3;
    const int high = block.high[j] >> (4 * half + k) & 1;
    const int scale = q3_k_scale(block.scales, i / 16) - 32;
    out[i] = d * static_cast<float>(scale) * static_cast<float>((low | high << 2) - 4);
  }
}

void decode_q4_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ4K>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int i = 0; i < kSuperBlock; ++i) {
    const int pair = i / 64, k = i / 32 % 2, j = i % 32;
    const ScaleMin group = k_scale_min(block.scales, i / 32);
    const int q = block.q[32 * pair + j] >> (4 * k) & 15;
    out[i] = d * static_cast<float>(group.scale) * static_cast<float>(q) -
             m * static_cast<float>(group.min);
  }
}

void decode_q5_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ5K>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for (int i = 0; i < kSuperBlock; ++i) {
    const int pair = i / 64, k = i / 32 % 2, j = i % 32;
    const ScaleMin group = k_scale_min(block.scales, i / 32);
    const int low = block.low[32 * pair + j] >> (4 * k) & 15;
    const int high = block.high[j] >> (2 * pair + k) & 1;
    out[i] = d * static_cast<float>(group.scale) * static_cast<float>(low | high << 4) -
             m * static_cast<float>(group.min);
  }
}

void decode_q6_k(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ6K>(bytes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < kSuperBlock; ++i) {
    const int half = i / 128, k = i / 32 % 4, j = i % 32;
    const int low = block.low[64 * half + 32 * (k % 2) + j] >> (4 * (k / 2)) & 15;
    const int high = block.high[32 * half + j] >> (2 * k) & 3;
    out[i] =
        d * static_cast<float>(block.scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
  }
}

}  // namespace penstock
