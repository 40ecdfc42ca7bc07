#include "quant/code_groups.h"

#include "base/check.h"
#include "quant/block_load.h"
#include "quant/codebook_blocks.h"
#include "quant/grid_blocks.h"
#include "quant/k_blocks.h"
#include "quant/legacy_blocks.h"
#include "quant/nibbles.h"
#include "quant/ternary_blocks.h"

namespace penstock {
namespace {

int fifth_of(const uint8_t* high, int i) {
  return (high[i / 8] >> (i % 8) & 1) << 4;
}

template <class CodeAt>
CodeGroup group_of(float scale, float minimum, int columns, const CodeAt& code_at) {
  CodeGroup group{.scale = scale, .minimum = minimum};
  for (int i = 0; i < columns; ++i) {
    group.codes[static_cast<size_t>(i)] = static_cast<int16_t>(code_at(i));
  }
  return group;
}

CodeGroup group_of_32(BlockType type, const std::byte* at) {
  switch (type) {
    case BlockType::kQ4_0: {
      const auto b = load_block<BlockQ4_0>(at);
      return group_of(f16_to_f32(b.d), 0, 32, [&](int i) { return nibble_of(b.low, i) - 8; });
    }
    case BlockType::kQ4_1: {
      const auto b = load_block<BlockQ4_1>(at);
      return group_of(f16_to_f32(b.d), f16_to_f32(b.m), 32,
                      [&](int i) { return nibble_of(b.low, i); });
    }
    case BlockType::kQ5_0: {
      const auto b = load_block<BlockQ5_0>(at);
      return group_of(f16_to_f32(b.d), 0, 32,
                      [&](int i) { return (nibble_of(b.low, i) | fifth_of(b.high, i)) - 16; });
    }
    case BlockType::kQ5_1: {
      const auto b = load_block<BlockQ5_1>(at);
      return group_of(f16_to_f32(b.d), f16_to_f32(b.m), 32,
                      [&](int i) { return nibble_of(b.low, i) | fifth_of(b.high, i); });
    }
    case BlockType::kQ8_0: {
      const auto b = load_block<BlockQ8_0>(at);
      return group_of(f16_to_f32(b.d), 0, 32, [&](int i) { return b.q[i]; });
    }
    case BlockType::kIq4Nl: {
      const auto b = load_block<BlockIq4Nl>(at);
      return group_of(f16_to_f32(b.d), 0, 32,
                      [&](int i) { return kIq4Values[static_cast<size_t>(nibble_of(b.q, i))]; });
    }
    default: {
      PENSTOCK_CHECK(type == BlockType::kMxfp4);
      const auto b = load_block<BlockMxfp4>(at);
      return group_of(half_of_e8m0(b.e), 0, 32,
                      [&](int i) { return kE2m1Doubled[static_cast<size_t>(nibble_of(b.q, i))]; });
    }
  }
}

// Two bits of q as Q2_K, Q3_K and TQ2_0 have them: i < 256.
int two_bits(const uint8_t* q, int i) {
  return q[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
}
int k_nibble(const uint8_t* q, int i) {
  return q[i / 64 * 32 + i % 32] >> (4 * (i / 32 % 2)) & 15;
}
int q3_k_scale_of(const uint8_t scales[12], int group) {
  const int low = scales[group % 8] >> (4 * (group / 8)) & 15;
  return (low | (scales[8 + group % 4] >> (2 * (group / 4)) & 3) << 4) - 32;
}

CodeGroup group_of_grid(const GridGroup& group, int columns) {
  return group_of(group.scale, 0, columns,
                  [&](int i) { return group.codes[static_cast<size_t>(i)]; });
}

CodeGroup group_of_256(BlockType type, const std::byte* at, int group, int columns) {
  const int first = group * columns;
  const auto f32 = [](int value) { return static_cast<float>(value); };
  switch (type) {
    case BlockType::kQ2K: {
      const auto b = load_block<BlockQ2K>(at);
      return group_of(f16_to_f32(b.d) * f32(b.scales[group] & 15),
                      -(f16_to_f32(b.m) * f32(b.scales[group] >> 4)), columns,
                      [&](int i) { return two_bits(b.q, first + i); });
    }
    case BlockType::kQ3K: {
      const auto b = load_block<BlockQ3K>(at);
      return group_of(f16_to_f32(b.d) * f32(q3_k_scale_of(b.scales, group)), 0, columns,
                      [&](int i) {
                        const int e = first + i;
                        return (two_bits(b.low, e) | (b.high[e % 32] >> (e / 32) & 1) << 2) - 4;
                      });
    }
    case BlockType::kQ4K: {
      const auto b = load_block<BlockQ4K>(at);
      const ScaleMin both = k_scale_min(b.scales, group);
      return group_of(f16_to_f32(b.d) * f32(both.scale), -(f16_to_f32(b.m) * f32(both.min)),
                      columns, [&](int i) { return k_nibble(b.q, first + i); });
    }
    case BlockType::kQ5K: {
      const auto b = load_block<BlockQ5K>(at);
      const ScaleMin both = k_scale_min(b.scales, group);
      return group_of(f16_to_f32(b.d) * f32(both.scale), -(f16_to_f32(b.m) * f32(both.min)),
                      columns, [&](int i) {
                        const int e = first + i;
                        return k_nibble(b.low, e) | (b.high[e % 32] >> (e / 32) & 1) << 4;
                      });
    }
    case BlockType::kQ6K: {
      const auto b = load_block<BlockQ6K>(at);
      return group_of(f16_to_f32(b.d) * f32(b.scales[group]), 0, columns, [&](int i) {
        const int e = first + i, half = e / 128, k = e / 32 % 4, j = e % 32;
        const int low = b.low[64 * half + 32 * (k % 2) + j] >> (4 * (k / 2)) & 15;
        return (low | (b.high[32 * half + j] >> (2 * k) & 3) << 4) - 32;
      });
    }
    case BlockType::kIq4Xs: {
      const auto b = load_block<BlockIq4Xs>(at);
      const int low = b.scales_low[group / 2] >> (4 * (group % 2)) & 15;
      const int scale = (low | (b.scales_high >> (2 * group) & 3) << 4) - 32;
      return group_of(f16_to_f32(b.d) * f32(scale), 0, columns, [&](int i) {
        return kIq4Values[static_cast<size_t>(nibble_of(b.q + kHalfBlock * group, i))];
      });
    }
    case BlockType::kIq2Xxs:
      return group_of_grid(iq2_xxs_group(load_block<BlockIq2Xxs>(at), group), columns);
    case BlockType::kIq2Xs:
      return group_of_grid(iq2_xs_group(load_block<BlockIq2Xs>(at), group), columns);
    case BlockType::kIq2S:
      return group_of_grid(iq2_s_group(load_block<BlockIq2S>(at), group), columns);
    case BlockType::kIq3Xxs:
      return group_of_grid(iq3_xxs_group(load_block<BlockIq3Xxs>(at), group), columns);
    case BlockType::kIq3S:
      return group_of_grid(iq3_s_group(load_block<BlockIq3S>(at), group), columns);
    default: {
      PENSTOCK_CHECK(type == BlockType::kTq2_0);
      const auto b = load_block<BlockTq2_0>(at);
      return group_of(f16_to_f32(b.d), 0, columns, [&](int i) { return two_bits(b.q, i) - 1; });
    }
  }
}

}  // namespace

int64_t code_group_columns(const Coding& coding) {
  if (coding.kind == Coding::Kind::kAffine) return coding.affine.group;
  if (coding.kind == Coding::Kind::kMlxMxfp4) return kMlxMxfp4Group;
  if (coding.kind == Coding::Kind::kFp8) return 0;
  switch (coding.block) {
    case BlockType::kQ4_0:
    case BlockType::kQ4_1:
    case BlockType::kQ5_0:
    case BlockType::kQ5_1:
    case BlockType::kQ8_0:
    case BlockType::kIq4Nl:
    case BlockType::kMxfp4:
    case BlockType::kQ4K:
    case BlockType::kQ5K:
    case BlockType::kIq4Xs:
    case BlockType::kIq2Xxs:
    case BlockType::kIq3Xxs:
    case BlockType::kIq3S: return 32;
    case BlockType::kIq2Xs:
    case BlockType::kIq2S:
    case BlockType::kQ2K:
    case BlockType::kQ3K:
    case BlockType::kQ6K: return 16;
    case BlockType::kTq2_0: return kSuperBlock;
    default: return 0;
  }
}

bool has_minima(const Coding& coding) {
  if (coding.kind != Coding::Kind::kBlocks) return coding.kind == Coding::Kind::kAffine;
  switch (coding.block) {
    case BlockType::kQ4_1:
    case BlockType::kQ5_1:
    case BlockType::kQ2K:
    case BlockType::kQ4K:
    case BlockType::kQ5K: return true;
    default: return false;
  }
}

CodeGroup code_group(const Coding& coding, std::span<const std::byte> codes,
                     std::span<const std::byte> scales, std::span<const std::byte> biases,
                     int64_t index) {
  const auto columns = static_cast<int>(code_group_columns(coding));
  PENSTOCK_CHECK(columns > 0);
  const int64_t first = index * columns;
  switch (coding.kind) {
    case Coding::Kind::kBlocks: {
      const BlockLayout& layout = layout_of(coding.block);
      const std::byte* block = codes.data() + first / layout.elements * layout.bytes;
      if (layout.elements == 32) return group_of_32(coding.block, block);
      const auto in_block = static_cast<int>(first % layout.elements) / columns;
      return group_of_256(coding.block, block, in_block, columns);
    }
    case Coding::Kind::kAffine:
      return group_of(load_float(coding.affine.scales, scales.data(), static_cast<size_t>(index)),
                      load_float(coding.affine.scales, biases.data(), static_cast<size_t>(index)),
                      columns,
                      [&](int i) { return affine_code(codes, coding.affine.bits, first + i); });
    case Coding::Kind::kMlxMxfp4:
      return group_of(half_of_e8m0(std::to_integer<uint8_t>(scales[static_cast<size_t>(index)])), 0,
                      columns,
                      [&](int i) { return kE2m1Doubled[affine_code(codes, 4, first + i)]; });
    case Coding::Kind::kFp8: break;
  }
  PENSTOCK_CHECK(false);
  return {};
}

}  // namespace penstock
