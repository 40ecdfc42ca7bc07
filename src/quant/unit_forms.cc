#include "quant/unit_forms.h"

#include "quant/codebook_blocks.h"
#include "quant/grid_blocks.h"
#include "quant/k_blocks.h"
#include "quant/legacy_blocks.h"
#include "quant/ternary_blocks.h"

namespace penstock {
namespace {

// Two blocks of 32 with sixteen bytes of nibbles each.
template <class Block>
constexpr UnitForm nibbles_of_two(size_t low) {
  UnitForm form{.columns = 64, .bytes = 2 * sizeof(Block)};
  form.run(low, 4);
  form.run(sizeof(Block) + low, 4);
  return form;
}

template <class Block>
constexpr UnitForm super_block() {
  return {.columns = kSuperBlock, .bytes = sizeof(Block)};
}

// d, and then words alone.
template <class Block>
constexpr UnitForm grid_block() {
  static_assert(offsetof(Block, d) == 0 && sizeof(Block) % 4 == 2);
  UnitForm form = super_block<Block>();
  form.run(sizeof(Block::d), sizeof(Block) / 4);
  form.set_half(0, 1);
  return form;
}

constexpr UnitForm form_of_block(BlockType type) {
  UnitForm form;
  switch (type) {
    case BlockType::kQ4_0:
    case BlockType::kIq4Nl:
      form = nibbles_of_two<BlockQ4_0>(2);
      form.word(0, 18);
      break;
    case BlockType::kQ4_1:
      form = nibbles_of_two<BlockQ4_1>(4);
      form.word(0, 20);
      form.word(2, 22);
      break;
    case BlockType::kQ5_0:
      form = nibbles_of_two<BlockQ5_0>(6);
      form.run(2, 1);
      form.run(24, 1);
      form.word(0, 22);
      form.spread_begin = 8;
      form.spread_end = 10;
      break;
    case BlockType::kQ5_1:
      form = nibbles_of_two<BlockQ5_1>(8);
      form.run(4, 1);
      form.run(28, 1);
      form.word(0, 24);
      form.word(2, 26);
      form.spread_begin = 8;
      form.spread_end = 10;
      break;
    case BlockType::kQ8_0:
      form = {.columns = 64, .bytes = 2 * sizeof(BlockQ8_0)};
      form.run(2, 8);
      form.run(36, 8);
      form.turned = form.words;
      form.word(0, 34);
      break;
    case BlockType::kMxfp4:
      form = nibbles_of_two<BlockMxfp4>(1);
      form.set_half(0, 17);
      break;
    case BlockType::kQ2K:
      form = super_block<BlockQ2K>();
      form.run(offsetof(BlockQ2K, q), 16);
      form.run(offsetof(BlockQ2K, scales), 4);
      form.run(offsetof(BlockQ2K, d), 1);
      break;
    case BlockType::kQ3K:
      form = super_block<BlockQ3K>();
      form.run(offsetof(BlockQ3K, low), 16);
      form.run(offsetof(BlockQ3K, high), 8);
      form.run(offsetof(BlockQ3K, scales), 3);
      form.set_half(offsetof(BlockQ3K, d), offsetof(BlockQ3K, d) + 1);
      break;
    case BlockType::kQ4K:
      form = super_block<BlockQ4K>();
      form.run(offsetof(BlockQ4K, q), 32);
      form.run(offsetof(BlockQ4K, scales), 3);
      form.run(offsetof(BlockQ4K, d), 1);
      break;
    case BlockType::kQ5K:
      form = super_block<BlockQ5K>();
      form.run(offsetof(BlockQ5K, low), 32);
      form.run(offsetof(BlockQ5K, high), 8);
      form.run(offsetof(BlockQ5K, scales), 3);
      form.run(offsetof(BlockQ5K, d), 1);
      break;
    case BlockType::kQ6K:
      form = super_block<BlockQ6K>();
      form.run(offsetof(BlockQ6K, low), 32);
      form.run(offsetof(BlockQ6K, high), 16);
      form.run(offsetof(BlockQ6K, scales), 4);
      form.set_half(offsetof(BlockQ6K, d), offsetof(BlockQ6K, d) + 1);
      break;
    case BlockType::kIq4Xs:
      form = super_block<BlockIq4Xs>();
      form.run(offsetof(BlockIq4Xs, q), 32);
      form.run(offsetof(BlockIq4Xs, scales_low), 1);
      form.run(offsetof(BlockIq4Xs, d), 1);
      break;
    case BlockType::kTq2_0:
      form = super_block<BlockTq2_0>();
      form.run(offsetof(BlockTq2_0, q), 16);
      form.set_half(offsetof(BlockTq2_0, d), offsetof(BlockTq2_0, d) + 1);
      break;
    case BlockType::kIq2Xxs: return grid_block<BlockIq2Xxs>();
    case BlockType::kIq2Xs: return grid_block<BlockIq2Xs>();
    case BlockType::kIq2S: return grid_block<BlockIq2S>();
    case BlockType::kIq3Xxs: return grid_block<BlockIq3Xxs>();
    case BlockType::kIq3S: return grid_block<BlockIq3S>();
    default: break;
  }
  return form;
}

// Of codes that are whole words: `count` for 64 columns.
constexpr UnitForm words_of_64(size_t count) {
  UnitForm form{.columns = 64, .bytes = static_cast<int64_t>(4 * count)};
  form.run(0, count);
  return form;
}

constexpr auto kBlockForms = [] {
  std::array<UnitForm, kNumBlockTypes> forms;
  for (size_t type = 0; type < forms.size(); ++type) {
    forms[type] = form_of_block(static_cast<BlockType>(type));
  }
  return forms;
}();
constexpr auto kWordForms = [] {
  std::array<UnitForm, 17> forms;
  for (size_t count = 0; count < forms.size(); ++count) forms[count] = words_of_64(count);
  return forms;
}();

}  // namespace

const UnitForm& unit_form_of(const Coding& coding) {
  switch (coding.kind) {
    case Coding::Kind::kBlocks: return kBlockForms[static_cast<size_t>(coding.block)];
    case Coding::Kind::kAffine: return kWordForms[static_cast<size_t>(2 * coding.affine.bits)];
    case Coding::Kind::kMlxMxfp4: return kWordForms[8];
    case Coding::Kind::kFp8: break;
  }
  return kWordForms[16];
}

}  // namespace penstock
