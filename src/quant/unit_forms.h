// How a row's unit of codes is cut into words, for every coding that has row panels (row_panels.h).
//
// Threads  plain functions; nothing is allocated
// Source   legacy_blocks.h, k_blocks.h, codebook_blocks.h, grid_blocks.h, ternary_blocks.h
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "quant/coding.h"

namespace penstock {

inline constexpr size_t kUnitWordsMax = 64;

// Where the bytes of a word are in a row's unit: the low and the high half, each two neighbours.
struct WordPlace {
  uint8_t low, high;
};

// What a unit of one row of codes becomes.
struct UnitForm {
  int64_t columns = 0, bytes = 0;  // 0: there is no such form
  size_t words = 0;
  std::array<WordPlace, kUnitWordsMax> places = {};
  uint64_t fours = 0;  // bit w: words w to w + 3 are neighbours, and belong together
  bool has_half = false;
  std::array<uint8_t, 2> half = {};         // the places of its bytes
  size_t turned = 0;                        // so many words have the top bit of every byte turned
  size_t spread_begin = 0, spread_end = 0;  // words whose bits are spread (below)

  constexpr void word(size_t low, size_t high) {
    places[words++] = {static_cast<uint8_t>(low), static_cast<uint8_t>(high)};
  }
  constexpr void run(size_t offset, size_t count) {  // neighbours in both
    for (size_t i = 0; i + 4 <= count; i += 4) fours |= uint64_t{1} << (words + i);
    for (size_t i = 0; i < count; ++i) word(offset + 4 * i, offset + 4 * i + 2);
  }
  constexpr void set_half(size_t low, size_t high) {
    has_half = true;
    half = {static_cast<uint8_t>(low), static_cast<uint8_t>(high)};
  }
};

// columns 0: a coding of blocks that has no such form.
const UnitForm& unit_form_of(const Coding& coding);

// Bits whose numbers differ in bits a > b of the number change places.
constexpr uint32_t exchange_bits(uint32_t bits, int a, int b, uint32_t a_not_b) {
  const int distance = (1 << a) - (1 << b);
  const uint32_t differ = (bits >> distance ^ bits) & a_not_b >> distance;
  return bits ^ differ ^ differ << distance;
}

// The fifth bits of 32 neighbours: bit i is element i's, and is to be bit i / 4 of byte i % 4, so
// that a shift brings four neighbours' under four bytes. That turns the five bits of a bit's number
// by two, in four exchanges.
constexpr uint32_t spread_bits(uint32_t bits) {
  bits = exchange_bits(bits, 4, 1, 0x33330000u);
  bits = exchange_bits(bits, 3, 0, 0x55005500u);
  bits = exchange_bits(bits, 2, 1, 0x30303030u);
  return exchange_bits(bits, 1, 0, 0x44444444u);
}
constexpr uint32_t gather_bits(uint32_t spread) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= (spread >> (8 * (i % 4) + i / 4) & 1u) << i;
  return bits;
}

}  // namespace penstock
