// What the tokenizer must know of a code point: its class, and whether NFC may cut before it.
//
// The tables are read off the reference tokenizer (tools/unicode_tables.py): classes as in Unicode
// 16.0, normalisation as in Unicode 9.0. The mixture is the reference's, and so the model's.
//
// Threads  constant after the first use, which may come from any thread.
// Memory   one byte for each code point below U+E0200 in blocks of 256, equal blocks shared: 50
// KiB.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace penstock {

enum class CharClass : uint8_t {
  kOther = 0,
  kLetter = 1,  // \p{L}
  kMark = 2,    // \p{M}
  kNumber = 3,  // \p{N}
  kSpace = 4,   // \s: White_Space
};

class UnicodeTables {
 public:
  static const UnicodeTables& get();

  CharClass char_class(char32_t code_point) const {
    return static_cast<CharClass>(lookup(code_point) & 7);
  }

  // NFC may move or replace this code point, or merge it with one before it.
  bool is_nfc_follower(char32_t code_point) const { return (lookup(code_point) & 8) != 0; }

 private:
  static constexpr uint32_t kBlockBits = 8;
  static constexpr uint32_t kBlockSize = 1u << kBlockBits;
  static constexpr uint32_t kCodePoints = 0x110000;

  UnicodeTables();

  uint8_t lookup(char32_t code_point) const {
    if (code_point >= kCodePoints) return 0;
    const size_t block = block_of_[code_point >> kBlockBits];
    return values_[block * kBlockSize + (code_point & (kBlockSize - 1))];
  }

  std::array<uint8_t, kCodePoints / kBlockSize> block_of_{};
  std::vector<uint8_t> values_;  // [blocks, kBlockSize]
};

}  // namespace penstock
