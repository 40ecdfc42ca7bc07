// Sixteen rows' words beside one another, with vectors of 128 bits that every processor has.
//
// Of each row four neighbouring words are loaded at once, and four rows change places with four words;
// what is left of a row that is no four neighbours is for the caller. Codes that cross words are moved
// by a table of shifts and masks, which is the same for all rows. A pass of these runs at about the rate
// at which a processor's memory gives bytes (bench/coded_bench, "lay out").
//
// Threads  Plain functions; nothing is allocated.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"

namespace penstock {

inline constexpr size_t kLanes = kPanelRows;
using Words4 [[gnu::vector_size(16)]] = uint32_t;

inline Words4 load_words4(const std::byte* from) {
  Words4 words;
  std::memcpy(&words, from, sizeof(words));
  return words;
}
inline void store_words4(const Words4& words, std::byte* to) {
  std::memcpy(to, &words, sizeof(words));
}

// Words at rows[r] + offset, four of each row, to lanes[4][16], each with the bits of `turn` turned.
inline void transpose_four_words(const std::array<const std::byte*, kLanes>& rows, size_t offset,
                                 uint32_t turn, std::byte* lanes) {
  const Words4 turned = {turn, turn, turn, turn};
  for (size_t r = 0; r < kLanes; r += 4, lanes += sizeof(Words4)) {
    const Words4 a = load_words4(rows[r] + offset), b = load_words4(rows[r + 1] + offset);
    const Words4 c = load_words4(rows[r + 2] + offset), d = load_words4(rows[r + 3] + offset);
    const Words4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const Words4 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Words4 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const Words4 cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const size_t word = kLanes * sizeof(uint32_t);
    store_words4(__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5) ^ turned, lanes);
    store_words4(__builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7) ^ turned, lanes + word);
    store_words4(__builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5) ^ turned, lanes + 2 * word);
    store_words4(__builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7) ^ turned, lanes + 3 * word);
  }
}

// Bits of one word that go into another, all by the same distance.
struct BitMove {
  uint8_t from = 0;  // word
  uint8_t left = 0;  // distance; one of the two is 0
  uint8_t right = 0;
  uint32_t mask = 0;  // where they come to
};

// What each word of a result is made of.
struct BitMoves {
  static constexpr size_t kMovesMax = 192, kWordsMax = 16;

  std::array<BitMove, kMovesMax> moves = {};     // by the word that they go to
  std::array<uint8_t, kWordsMax + 1> ends = {};  // of word w's: from ends[w] to ends[w + 1]
  size_t words = 0;
};

// words[16 lanes] of a file's stream to moves.words words at `lanes`.
inline void move_bits(const BitMoves& moves, const std::byte* words, std::byte* lanes) {
  constexpr size_t kVectors = kLanes / 4;
  for (size_t to = 0; to < moves.words; ++to) {
    std::array<Words4, kVectors> sum = {};
    for (size_t i = moves.ends[to]; i < moves.ends[to + 1]; ++i) {
      const BitMove& move = moves.moves[i];
      const std::byte* from = words + move.from * kLanes * sizeof(uint32_t);
      for (size_t v = 0; v < kVectors; ++v) {
        const Words4 word = load_words4(from + v * sizeof(Words4));
        sum[v] |= (word << move.left >> move.right) & move.mask;
      }
    }
    for (size_t v = 0; v < kVectors; ++v) {
      store_words4(sum[v], lanes + (to * kVectors + v) * sizeof(Words4));
    }
  }
}

}  // namespace penstock
