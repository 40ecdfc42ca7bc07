#include "quant/codebook_blocks.h"

#include <bit>

#include "base/dtype.h"
#include "quant/block_load.h"
#include "quant/nibbles.h"

namespace penstock {

float half_of_e8m0(uint8_t e) {
  // Below 2^-126 the number is subnormal: its bits are a shifted one.
  if (e < 2) return std::bit_cast<float>(uint32_t{0x00200000} << e);
  return std::bit_cast<float>(static_cast<uint32_t>(e - 1) << 23);
}

void decode_iq4_nl(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq4Nl>(bytes);
  const float d = f16_to_f32(block.d);
  for (int i = 0; i < 2 * kHalfBlock; ++i) {
    out[i] = d * static_cast<float>(kIq4Values[static_cast<size_t>(nibble_of(block.q, i))]);
  }
}

void decode_iq4_xs(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockIq4Xs>(bytes);
  const float d = f16_to_f32(block.d);
  for (int group = 0; group < 8; ++group) {
    const int low = block.scales_low[group / 2] >> (4 * (group % 2)) & 15;
    const int high = block.scales_high >> (2 * group) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    const uint8_t* q = block.q + kHalfBlock * group;
    for (int i = 0; i < 2 * kHalfBlock; ++i) {
      *out++ = scale * static_cast<float>(kIq4Values[static_cast<size_t>(nibble_of(q, i))]);
    }
  }
}

void decode_mxfp4(const std::byte* bytes, float* out) {
  const auto block = load_block<BlockMxfp4>(bytes);
  const float scale = half_of_e8m0(block.e);
  for (int i = 0; i < 2 * kHalfBlock; ++i) {
    out[i] = scale * static_cast<float>(kE2m1Doubled[static_cast<size_t>(nibble_of(block.q, i))]);
  }
}

}  // namespace penstock
