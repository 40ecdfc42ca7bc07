#include "quant/number_check.h"

#include <array>

#include "base/check.h"
#include "quant/block_load.h"
#include "quant/codebook_blocks.h"
#include "quant/fp8.h"
#include "quant/grid_blocks.h"
#include "quant/k_blocks.h"
#include "quant/legacy_blocks.h"
#include "quant/ternary_blocks.h"

namespace penstock {
namespace {

bool is_half(uint16_t bits) {
  return (bits & 0x7c00) != 0x7c00;
}
bool is_brain(uint16_t bits) {
  return (bits & 0x7f80) != 0x7f80;
}
bool is_single(uint32_t bits) {
  return (bits & 0x7f800000) != 0x7f800000;
}

// Where the halves of a block are; -1: there is no such one.
struct HalfPlaces {
  int64_t first = -1, second = -1;
};

template <class Block>
HalfPlaces one_half() {
  return {.first = offsetof(Block, d)};
}
template <class Block>
HalfPlaces two_halves() {
  return {.first = offsetof(Block, d), .second = offsetof(Block, m)};
}

HalfPlaces halves_of(BlockType type) {
  switch (type) {
    case BlockType::kQ4_0: return one_half<BlockQ4_0>();
    case BlockType::kQ4_1: return two_halves<BlockQ4_1>();
    case BlockType::kQ5_0: return one_half<BlockQ5_0>();
    case BlockType::kQ5_1: return two_halves<BlockQ5_1>();
    case BlockType::kQ8_0: return one_half<BlockQ8_0>();
    case BlockType::kQ2K: return two_halves<BlockQ2K>();
    case BlockType::kQ3K: return one_half<BlockQ3K>();
    case BlockType::kQ4K: return two_halves<BlockQ4K>();
    case BlockType::kQ5K: return two_halves<BlockQ5K>();
    case BlockType::kQ6K: return one_half<BlockQ6K>();
    case BlockType::kIq4Nl: return one_half<BlockIq4Nl>();
    case BlockType::kIq4Xs: return one_half<BlockIq4Xs>();
    case BlockType::kIq2Xxs: return one_half<BlockIq2Xxs>();
    case BlockType::kIq2Xs: return one_half<BlockIq2Xs>();
    case BlockType::kIq2S: return one_half<BlockIq2S>();
    case BlockType::kIq3Xxs: return one_half<BlockIq3Xxs>();
    case BlockType::kIq3S: return one_half<BlockIq3S>();
    case BlockType::kIq1S: return one_half<BlockIq1S>();
    case BlockType::kTq1_0: return one_half<BlockTq1_0>();
    case BlockType::kTq2_0: return one_half<BlockTq2_0>();
    default: return {};
  }
}

// Four top bits of each of its four words of scales.
bool has_number(const BlockIq1M& block) {
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(block.scales[i] >> 12) << (4 * i);
  return is_half(static_cast<uint16_t>(bits));
}

// First of the numbers, each of that type, that is none; -1: none.
template <class Bits, class Check>
int64_t find_bad(std::span<const std::byte> numbers, const Check& is_number) {
  bool all_good = true;
  const auto count = static_cast<int64_t>(numbers.size() / sizeof(Bits));
  const auto number = [&](int64_t i) {
    return load_block<Bits>(numbers.data() + static_cast<size_t>(i) * sizeof(Bits));
  };
  for (int64_t i = 0; i < count; ++i) all_good &= is_number(number(i));
  for (int64_t i = 0; i < count && !all_good; ++i) {
    if (!is_number(number(i))) return i;
  }
  return -1;
}

int64_t find_bad_number(DType type, std::span<const std::byte> numbers) {
  switch (type) {
    case DType::kF32: return find_bad<uint32_t>(numbers, is_single);
    case DType::kF16: return find_bad<uint16_t>(numbers, is_half);
    default: PENSTOCK_CHECK(type == DType::kBF16);
  }
  return find_bad<uint16_t>(numbers, is_brain);
}

int64_t find_bad_block(BlockType type, std::span<const std::byte> rows) {
  switch (type) {
    case BlockType::kF32: return find_bad_number(DType::kF32, rows);
    case BlockType::kF16: return find_bad_number(DType::kF16, rows);
    case BlockType::kBF16: return find_bad_number(DType::kBF16, rows);
    default: break;
  }
  const HalfPlaces halves = halves_of(type);
  const bool is_iq1_m = type == BlockType::kIq1M;
  if (halves.first < 0 && !is_iq1_m) return -1;
  const BlockLayout& layout = layout_of(type);
  const auto bytes = static_cast<size_t>(bytes_of(layout, layout.elements));
  const auto is_good_half = [&](size_t at, int64_t place) {
    return place < 0 ||
           is_half(load_block<uint16_t>(rows.data() + at + static_cast<size_t>(place)));
  };
  for (size_t at = 0; at + bytes <= rows.size(); at += bytes) {
    const bool is_good = is_iq1_m
                             ? has_number(load_block<BlockIq1M>(rows.data() + at))
                             : is_good_half(at, halves.first) && is_good_half(at, halves.second);
    if (!is_good) return static_cast<int64_t>(at / bytes) * layout.elements;
  }
  return -1;
}

}  // namespace

int64_t find_no_number(const Coding& coding, CodedPlane plane, std::span<const std::byte> row) {
  const bool are_codes = plane == CodedPlane::kCodes;
  int64_t found = -1, columns = 1;  // columns of a number
  switch (coding.kind) {
    case Coding::Kind::kBlocks: return find_bad_block(coding.block, row);
    case Coding::Kind::kAffine:
      if (!are_codes) found = find_bad_number(coding.affine.scales, row);
      columns = coding.affine.group;
      break;
    case Coding::Kind::kMlxMxfp4: return -1;
    case Coding::Kind::kFp8:
      if (are_codes) return find_bad<uint8_t>(row, [](uint8_t e) { return (e & 0x7f) != 0x7f; });
      found = find_bad_number(coding.scale, row);
      columns = kFp8Square;
      break;
  }
  return found < 0 ? -1 : found * columns;
}

}  // namespace penstock
