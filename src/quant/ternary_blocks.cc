#include "quant/ternary_blocks.h"

#include "base/dtype.h"
#include "quant/block_load.h"

namespace penstock {
namespace {

// Digit k of `count` bytes after digit k of the one before: count values for each k.
float* decode_digits(const uint8_t* bytes, int count, int digits, float d, float* out) {
  uint32_t power = 1;
  for (int k = 0; k < digits; ++k, power *= 3) {
    for (int j = 0; j < count; ++j) {
      const uint32_t fraction = bytes[j] * power & 255u;
      *out++ = d * static_cast<float>(static_cast<int>(fraction * 3 >> 8) - 1);
    }
  }
  return out;
}

}  // namespace

void decode_tq1_0(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockTq1_0>(bytes);
  const float d = f16_to_f32(block.d);
  out = decode_digits(block.q, 32, 5, d, out);
  out = decode_digits(block.q + 32, 16, 5, d, out);
  decode_digits(block.rest, 4, 4, d, out);
}

void decode_tq2_0(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockTq2_0>(bytes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, k = i / 32 % 4, j = i % 32;
    out[i] = d * static_cast<float>((block.q[32 * half + j] >> (2 * k) & 3) - 1);
  }
}

}  // namespace penstock
