#include "quant/legacy_blocks.h"

#include "base/dtype.h"
#include "quant/block_load.h"
#include "quant/nibbles.h"

namespace penstock {
namespace {

// The two halves of a block apart: loops over neighbours, which compilers turn into vectors.
template <class Value>
void for_nibbles(const uint8_t* low, float* out, const Value& value) {
  for (int i = 0; i < kHalfBlock; ++i) out[i] = value(low[i] & 15, i);
  for (int i = 0; i < kHalfBlock; ++i) out[kHalfBlock + i] = value(low[i] >> 4, kHalfBlock + i);
}

int fifth_bit(uint32_t high, int i) {
  return static_cast<int>(high >> i & 1) << 4;
}

}  // namespace

void decode_q4_0(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ4_0>(bytes);
  const float d = f16_to_f32(block.d);
  for_nibbles(block.low, out, [d](int q, int) { return d * static_cast<float>(q - 8); });
}

void decode_q4_1(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ4_1>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  for_nibbles(block.low, out, [d, m](int q, int) { return d * static_cast<float>(q) + m; });
}

void decode_q5_0(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ5_0>(bytes);
  const float d = f16_to_f32(block.d);
  const auto high = load_block<uint32_t>(reinterpret_cast<const std::byte*>(block.high));
  for_nibbles(block.low, out, [d, high](int q, int i) {
    return d * static_cast<float>((q | fifth_bit(high, i)) - 16);
  });
}

void decode_q5_1(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ5_1>(bytes);
  const float d = f16_to_f32(block.d);
  const float m = f16_to_f32(block.m);
  const auto high = load_block<uint32_t>(reinterpret_cast<const std::byte*>(block.high));
  for_nibbles(block.low, out, [d, m, high](int q, int i) {
    return d * static_cast<float>(q | fifth_bit(high, i)) + m;
  });
}

void decode_q8_0(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockQ8_0>(bytes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 2 * kHalfBlock; ++i) out[i] = d * static_cast<float>(block.q[i]);
}

}  // namespace penstock
