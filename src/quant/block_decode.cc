#include "quant/block_decode.h"

#include <array>
#include <cstring>

#include "base/check.h"
#include "base/dtype.h"
#include "quant/block_load.h"
#include "quant/codebook_blocks.h"
#include "quant/grid_blocks.h"
#include "quant/k_blocks.h"
#include "quant/legacy_blocks.h"
#include "quant/ternary_blocks.h"

namespace penstock {
namespace {

using Decode = void (*)(const std::byte* block, float* out);

void decode_f32(const std::byte* block, float* out) {
  std::memcpy(out, block, sizeof(float));
}
void decode_f16(const std::byte* block, float* out) {
  *out = f16_to_f32(load_block<uint16_t>(block));
}
void decode_bf16(const std::byte* block, float* out) {
  *out = bf16_to_f32(load_block<uint16_t>(block));
}

Decode decode_of(BlockType type) {
  switch (type) {
    case BlockType::kF32: return decode_f32;
    case BlockType::kF16: return decode_f16;
    case BlockType::kBF16: return decode_bf16;
    case BlockType::kQ4_0: return decode_q4_0;
    case BlockType::kQ4_1: return decode_q4_1;
    case BlockType::kQ5_0: return decode_q5_0;
    case BlockType::kQ5_1: return decode_q5_1;
    case BlockType::kQ8_0: return decode_q8_0;
    case BlockType::kQ2K: return decode_q2_k;
    case BlockType::kQ3K: return decode_q3_k;
    case BlockType::kQ4K: return decode_q4_k;
    case BlockType::kQ5K: return decode_q5_k;
    case BlockType::kQ6K: return decode_q6_k;
    case BlockType::kIq1S: return decode_iq1_s;
    case BlockType::kIq1M: return decode_iq1_m;
    case BlockType::kIq2Xxs: return decode_iq2_xxs;
    case BlockType::kIq2Xs: return decode_iq2_xs;
    case BlockType::kIq2S: return decode_iq2_s;
    case BlockType::kIq3Xxs: return decode_iq3_xxs;
    case BlockType::kIq3S: return decode_iq3_s;
    case BlockType::kIq4Nl: return decode_iq4_nl;
    case BlockType::kIq4Xs: return decode_iq4_xs;
    case BlockType::kTq1_0: return decode_tq1_0;
    case BlockType::kTq2_0: return decode_tq2_0;
    case BlockType::kMxfp4: return decode_mxfp4;
    case BlockType::kF64:
    case BlockType::kI8:
    case BlockType::kI16:
    case BlockType::kI32:
    case BlockType::kI64:
    case BlockType::kQ8_1:
    case BlockType::kQ8K:
    case BlockType::kNvfp4:
    case BlockType::kQ1_0: return nullptr;
  }
  return nullptr;
}

}  // namespace

bool is_decodable(BlockType type) {
  return decode_of(type) != nullptr;
}

void decode_blocks(BlockType type, std::span<const std::byte> bytes, std::span<float> values) {
  const BlockLayout& layout = layout_of(type);
  const Decode decode = decode_of(type);
  const auto elements = static_cast<int64_t>(values.size());
  PENSTOCK_CHECK(decode != nullptr && elements % layout.elements == 0);
  PENSTOCK_CHECK(static_cast<int64_t>(bytes.size()) == bytes_of(layout, elements));
  for (int64_t i = 0; i < elements / layout.elements; ++i) {
    decode(bytes.data() + i * layout.bytes, values.data() + i * layout.elements);
  }
}

}  // namespace penstock
