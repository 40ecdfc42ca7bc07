// Types of stored weights as blocks: a run of elements of one row, coded together in a few bytes.
//
// A checkpoint may give every tensor another type, so a type is data: a row of this table says how
// many elements and bytes a block has. Plain numbers are blocks of one element. Types that are
// known but never hold weights (integers, the activation formats) are in the table too, so that a
// file with such a tensor can be laid out and the tensor refused by its name.
//
// Source  GGUF: the numbers and sizes are those of the format's published type table.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock {

enum class BlockType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kI16,
  kI32,
  kI64,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ8_1,
  kQ2K,
  kQ3K,
  kQ4K,
  kQ5K,
  kQ6K,
  kQ8K,
  kIq1S,
  kIq1M,
  kIq2Xxs,
  kIq2Xs,
  kIq2S,
  kIq3Xxs,
  kIq3S,
  kIq4Nl,
  kIq4Xs,
  kTq1_0,
  kTq2_0,
  kMxfp4,
  kNvfp4,
  kQ1_0,
};
inline constexpr int kNumBlockTypes = static_cast<int>(BlockType::kQ1_0) + 1;

struct BlockLayout {
  BlockType type;
  std::string_view name;  // as files and people write it: "Q4_K"
  uint32_t gguf_id;
  int64_t elements;  // of a block
  int64_t bytes;
};

const BlockLayout& layout_of(BlockType type);
inline std::string_view name_of(BlockType type) {
  return layout_of(type).name;
}

std::optional<BlockType> block_type_of_gguf(uint32_t gguf_id);

// What a number that once was a type of GGUF stood for; empty if it never was one.
std::string_view withdrawn_gguf_type(uint32_t gguf_id);

// Bytes of `elements` neighbours of a row; elements is a multiple of the block.
constexpr int64_t bytes_of(const BlockLayout& layout, int64_t elements) {
  return elements / layout.elements * layout.bytes;
}

}  // namespace penstock
