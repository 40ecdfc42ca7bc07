#include "quant/split_codes.h"

#include <algorithm>
#include <array>

namespace penstock {
namespace {

struct SplitBits {
  int low = 0, high = 0;  // bits; low 0: the codes are not split
};
constexpr SplitBits split_of(int bits) {
  switch (bits) {
    case 3: return {2, 1};
    case 5: return {4, 1};
    case 6: return {4, 2};
    default: return {};
  }
}

// The place of column c of 64 in a plane of `bits` a code: word and shift. Low parts as q2 and q4 have
// them (compute/panel.h); the byte of a high part is that of its low part.
struct BitPlace {
  size_t word;
  int shift;
};
constexpr BitPlace low_place(int bits, size_t c) {
  const size_t in_word = 32 / static_cast<size_t>(bits);
  return {c / in_word, static_cast<int>(c % in_word) * bits};
}
constexpr BitPlace high_place(const SplitBits& split, size_t c) {
  const BitPlace low = low_place(split.low, c);
  const auto in_byte = static_cast<size_t>(8 / split.low);  // of the low part: fours of a word
  const size_t four = low.word * in_byte + static_cast<size_t>(low.shift % 8 / split.low);
  const auto fours = static_cast<size_t>(8 / split.high);  // of a word of high parts
  const auto words = static_cast<size_t>(2 * split.low);   // before them
  return {words + four / fours, 8 * (low.shift / 8) + static_cast<int>(four % fours) * split.high};
}

// Adds the bits [begin, end) of a stream, in one word of it, that come to `place`; moves by the same
// distance between the same words become one.
constexpr void add_move(std::array<BitMove, BitMoves::kMovesMax>& moves, size_t first,
                        size_t& count, size_t begin, size_t end, BitPlace place) {
  const int distance = place.shift - static_cast<int>(begin % 32);
  const BitMove move = {.from = static_cast<uint8_t>(begin / 32),
                        .left = static_cast<uint8_t>(std::max(distance, 0)),
                        .right = static_cast<uint8_t>(std::max(-distance, 0)),
                        .mask = ((1u << (end - begin)) - 1) << place.shift};
  for (size_t i = first; i < count; ++i) {
    BitMove& other = moves[i];
    if (other.from != move.from || other.left != move.left || other.right != move.right) continue;
    other.mask |= move.mask;
    return;
  }
  moves[count++] = move;
}

// From 64 codes of a file's stream to their low and high parts.
constexpr BitMoves moves_of(int bits) {
  const SplitBits split = split_of(bits);
  BitMoves made{.words = static_cast<size_t>(2 * bits)};
  size_t count = 0;
  for (size_t to = 0; to < made.words; ++to) {
    const size_t first = count;
    for (size_t c = 0; c < kGroupColumns; ++c) {
      const size_t code = c * static_cast<size_t>(bits);
      const size_t middle = code + static_cast<size_t>(split.low);
      const size_t ends[] = {code, middle, code + static_cast<size_t>(bits)};
      const BitPlace places[] = {low_place(split.low, c), high_place(split, c)};
      for (size_t part = 0; part < 2; ++part) {
        if (places[part].word != to) continue;
        const size_t begin = ends[part], end = ends[part + 1];
        const size_t next = (begin / 32 + 1) * 32;  // the part may go on in the next word
        add_move(made.moves, first, count, begin, std::min(end, next), places[part]);
        if (end <= next) continue;
        const int behind = places[part].shift + static_cast<int>(next - begin);
        add_move(made.moves, first, count, next, end, {to, behind});
      }
    }
    made.ends[to + 1] = static_cast<uint8_t>(count);
  }
  return made;
}
constexpr BitMoves kMovesOf3 = moves_of(3), kMovesOf5 = moves_of(5), kMovesOf6 = moves_of(6);

}  // namespace

bool has_split_codes(const Coding& coding) {
  return coding.kind == Coding::Kind::kAffine && split_of(coding.affine.bits).low > 0;
}

const BitMoves& moves_to_split(int bits) {
  if (bits == 3) return kMovesOf3;
  return bits == 5 ? kMovesOf5 : kMovesOf6;
}

void join_codes(int bits, const uint32_t* words, size_t lane, std::span<std::byte> stream) {
  const SplitBits split = split_of(bits);
  std::ranges::fill(stream, std::byte{0});
  for (size_t c = 0; c < kGroupColumns; ++c) {
    const BitPlace low = low_place(split.low, c), high = high_place(split, c);
    const uint32_t low_bits = words[low.word * kLanes + lane] >> low.shift;
    const uint32_t high_bits = words[high.word * kLanes + lane] >> high.shift;
    const uint32_t code =
        (low_bits & ((1u << split.low) - 1)) | (high_bits & ((1u << split.high) - 1)) << split.low;
    const size_t bit = c * static_cast<size_t>(bits);
    const uint32_t placed = code << (bit % 8);
    stream[bit / 8] |= static_cast<std::byte>(placed);
    if (placed > 0xff) stream[bit / 8 + 1] |= static_cast<std::byte>(placed >> 8);
  }
}

}  // namespace penstock
