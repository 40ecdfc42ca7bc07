#include "quant/row_panels.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "quant/block_load.h"
#include "quant/codebook_blocks.h"
#include "quant/fp8.h"
#include "quant/grid_blocks.h"
#include "quant/k_blocks.h"
#include "quant/lane_words.h"
#include "quant/legacy_blocks.h"
#include "quant/ternary_blocks.h"

namespace penstock {
namespace {

constexpr size_t kRows = kPanelRows;
constexpr size_t kWordsMax = 64;
constexpr int64_t kGroupsMax = 256;  // columns of an affine group

// Where the bytes of a word are in a row's unit: the low and the high half, each two neighbours.
struct WordPlace {
  uint8_t low, high;
};

// What a unit of one row of codes becomes.
struct UnitForm {
  int64_t columns = 0, bytes = 0;  // 0: there is no such form
  size_t words = 0;
  std::array<WordPlace, kWordsMax> places = {};
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

const UnitForm& form_of(const Coding& coding) {
  switch (coding.kind) {
    case Coding::Kind::kBlocks: return kBlockForms[static_cast<size_t>(coding.block)];
    case Coding::Kind::kAffine: return kWordForms[static_cast<size_t>(2 * coding.affine.bits)];
    case Coding::Kind::kMlxMxfp4: return kWordForms[8];
    case Coding::Kind::kFp8: break;
  }
  return kWordForms[16];
}

// Codes of 3, 5 and 6 bits cross the words of a file. They are kept as low parts, two or four bits,
// in the words of that width, and high parts behind them: of byte k of the n-th four of a word.
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
SplitBits split_of(const Coding& coding) {
  return coding.kind == Coding::Kind::kAffine ? split_of(coding.affine.bits) : SplitBits{};
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

void join_codes(int bits, const SplitBits& split, const uint32_t* words, size_t lane,
                std::span<std::byte> stream) {
  std::ranges::fill(stream, std::byte{0});
  for (size_t c = 0; c < kGroupColumns; ++c) {
    const BitPlace low = low_place(split.low, c), high = high_place(split, c);
    const uint32_t low_bits = words[low.word * kRows + lane] >> low.shift;
    const uint32_t high_bits = words[high.word * kRows + lane] >> high.shift;
    const uint32_t code =
        (low_bits & ((1u << split.low) - 1)) | (high_bits & ((1u << split.high) - 1)) << split.low;
    const size_t bit = c * static_cast<size_t>(bits);
    const uint32_t placed = code << (bit % 8);
    stream[bit / 8] |= static_cast<std::byte>(placed);
    if (placed > 0xff) stream[bit / 8 + 1] |= static_cast<std::byte>(placed >> 8);
  }
}

constexpr uint32_t kTurn = 0x80808080u;

uint64_t panel_unit_bytes(const UnitForm& form) {
  return form.words * kRows * 4 + (form.has_half ? kRows * 2 : 0);
}

using RowPlaces = std::array<const std::byte*, kRows>;

// Words of the sixteen rows' units side by side, each row's as its file has them.
void put_words(const UnitForm& form, const RowPlaces& rows, std::byte* out) {
  for (size_t w = 0; w < form.words;) {
    const WordPlace place = form.places[w];
    const uint32_t turn = w < form.turned ? kTurn : 0;
    std::byte* const to = out + w * kRows * sizeof(uint32_t);
    if (form.fours >> w & 1) {
      transpose_four_words(rows, place.low, turn, to);
      w += 4;
      continue;
    }
    std::array<uint32_t, kRows> lanes;
    for (size_t r = 0; r < kRows; ++r) {
      lanes[r] = (load_block<uint16_t>(rows[r] + place.low) |
                  static_cast<uint32_t>(load_block<uint16_t>(rows[r] + place.high)) << 16) ^
                 turn;
    }
    if (w >= form.spread_begin && w < form.spread_end) {
      for (uint32_t& lane : lanes) lane = spread_bits(lane);
    }
    std::memcpy(to, lanes.data(), sizeof(lanes));
    ++w;
  }
}

void put_halves(const UnitForm& form, const RowPlaces& rows, std::byte* out) {
  std::array<uint16_t, kRows> halves;
  for (size_t r = 0; r < kRows; ++r) {
    halves[r] = static_cast<uint16_t>(std::to_integer<uint32_t>(rows[r][form.half[0]]) |
                                      std::to_integer<uint32_t>(rows[r][form.half[1]]) << 8);
  }
  std::memcpy(out, halves.data(), sizeof(halves));
}

const BitMoves& moves_to_split(int bits) {
  if (bits == 3) return kMovesOf3;
  return bits == 5 ? kMovesOf5 : kMovesOf6;
}

void put_codes(const Coding& coding, int64_t columns, const PlaneRows& rows, std::byte* out) {
  const UnitForm& form = form_of(coding);
  const bool is_split = split_of(coding).low > 0;
  const auto unit_bytes = static_cast<size_t>(form.bytes);
  const size_t word_bytes = form.words * kRows * sizeof(uint32_t);
  const auto count = static_cast<size_t>(rows.count);
  RowPlaces places;  // where there is no row, the first stands for it, and becomes zeros below
  for (size_t r = 0; r < kRows; ++r) places[r] = rows.of(static_cast<int64_t>(r < count ? r : 0));
  for (int64_t unit = 0; unit < columns / form.columns; ++unit, out += panel_unit_bytes(form)) {
    if (is_split) {
      std::array<std::byte, kWordsMax * kRows * sizeof(uint32_t)> words;
      put_words(form, places, words.data());
      move_bits(moves_to_split(coding.affine.bits), words.data(), out);
    } else {
      put_words(form, places, out);
    }
    if (form.has_half) put_halves(form, places, out + word_bytes);
    for (const std::byte*& place : places) place += unit_bytes;
    if (count == kRows) continue;
    for (size_t w = 0; w < form.words; ++w) {
      std::fill(out + (w * kRows + count) * 4, out + (w + 1) * kRows * 4, std::byte{0});
    }
    if (form.has_half) {
      std::fill(out + word_bytes + count * 2, out + word_bytes + kRows * 2, std::byte{0});
    }
  }
}

// Numbers of the plane of scales or biases.
template <class Number>
void put_numbers(const PlaneRows& rows, std::span<std::byte> panel) {
  const size_t numbers = panel.size() / kRows / sizeof(Number);
  const auto count = static_cast<size_t>(rows.count);
  RowPlaces places;
  for (size_t r = 0; r < kRows; ++r) places[r] = rows.of(static_cast<int64_t>(r < count ? r : 0));
  for (size_t i = 0; i < numbers; ++i) {
    std::array<Number, kRows> lanes;
    for (size_t r = 0; r < kRows; ++r) {
      lanes[r] = load_block<Number>(places[r] + i * sizeof(Number));
    }
    std::fill(lanes.begin() + static_cast<int64_t>(count), lanes.end(), Number{0});
    std::memcpy(panel.data() + i * sizeof(lanes), lanes.data(), sizeof(lanes));
  }
}

void get_codes(const Coding& coding, int64_t columns, const std::byte* panel, size_t lane,
               std::byte* row) {
  const UnitForm& form = form_of(coding);
  const SplitBits split = split_of(coding);
  const auto unit_bytes = static_cast<size_t>(form.bytes);
  for (int64_t unit = 0; unit < columns / form.columns; ++unit, row += unit_bytes) {
    const std::byte* from = panel + static_cast<uint64_t>(unit) * panel_unit_bytes(form);
    if (split.low > 0) {
      std::array<uint32_t, kWordsMax * kRows> words;
      std::memcpy(words.data(), from, form.words * kRows * 4);
      join_codes(coding.affine.bits, split, words.data(), lane, {row, unit_bytes});
      continue;
    }
    for (size_t w = 0; w < form.words; ++w) {
      auto word = load_block<uint32_t>(from + (w * kRows + lane) * 4);
      if (w < form.turned) word ^= kTurn;
      if (w >= form.spread_begin && w < form.spread_end) word = gather_bits(word);
      const auto low = static_cast<uint16_t>(word), high = static_cast<uint16_t>(word >> 16);
      std::memcpy(row + form.places[w].low, &low, 2);
      std::memcpy(row + form.places[w].high, &high, 2);
    }
    if (!form.has_half) continue;
    const std::byte* half = from + (form.words * kRows * 2 + lane) * 2;
    row[form.half[0]] = half[0];
    row[form.half[1]] = half[1];
  }
}

// Bytes of one number of the plane of scales or biases.
size_t number_bytes(const Coding& coding) {
  switch (coding.kind) {
    case Coding::Kind::kAffine: return static_cast<size_t>(bits_of(coding.affine.scales)) / 8;
    case Coding::Kind::kFp8: return static_cast<size_t>(bits_of(coding.scale)) / 8;
    default: return 1;
  }
}

}  // namespace

bool has_row_panels(const Coding& coding, int64_t columns) {
  if (coding.kind == Coding::Kind::kAffine) {
    const int64_t group = coding.affine.group;
    if (group != kGroupColumns / 2 && group % kGroupColumns != 0) return false;
    if (group > kGroupsMax) return false;
    return columns % group == 0 && columns % kGroupColumns == 0;
  }
  const int64_t unit = form_of(coding).columns;
  return unit > 0 && columns % unit == 0;
}

int64_t unit_columns(const Coding& coding) {
  return form_of(coding).columns;
}

RowBytes row_panel_bytes(const Coding& coding, int64_t columns) {
  PENSTOCK_CHECK(has_row_panels(coding, columns));
  const RowBytes row = row_bytes(coding, columns);
  const UnitForm& form = form_of(coding);
  return {static_cast<uint64_t>(columns / form.columns) * panel_unit_bytes(form),
          row.scales * kRows, row.biases * kRows};
}

void make_row_panel(const Coding& coding, CodedPlane plane, int64_t columns, const PlaneRows& rows,
                    std::span<std::byte> panel) {
  PENSTOCK_CHECK(rows.count >= 1 && rows.count <= kPanelRows);
  PENSTOCK_CHECK(panel.size() == bytes_of(row_panel_bytes(coding, columns), plane));
  if (plane == CodedPlane::kCodes) return put_codes(coding, columns, rows, panel.data());
  switch (number_bytes(coding)) {
    case 1: return put_numbers<uint8_t>(rows, panel);
    case 2: return put_numbers<uint16_t>(rows, panel);
    default: return put_numbers<uint32_t>(rows, panel);
  }
}

void row_of_panel(const Coding& coding, CodedPlane plane, int64_t columns, const std::byte* panel,
                  int lane, std::span<std::byte> row) {
  PENSTOCK_CHECK(lane >= 0 && lane < kPanelRows);
  PENSTOCK_CHECK(row.size() == bytes_of(row_bytes(coding, columns), plane));
  const auto at = static_cast<size_t>(lane);
  if (plane == CodedPlane::kCodes) return get_codes(coding, columns, panel, at, row.data());
  const size_t size = number_bytes(coding);
  for (size_t i = 0; i * size < row.size(); ++i) {
    std::memcpy(row.data() + i * size, panel + (i * kRows + at) * size, size);
  }
}

void decode_panel_row(const CodedRows& rows, int64_t row, std::span<float> values) {
  const Coding& coding = rows.coding;
  const int64_t columns = std::ssize(values);
  const RowBytes panel = row_panel_bytes(coding, columns);
  const auto index = static_cast<uint64_t>(row / kPanelRows);
  const auto lane = static_cast<size_t>(row % kPanelRows);
  const std::byte* codes = rows.codes + index * panel.codes;
  const UnitForm& form = form_of(coding);
  const size_t size = number_bytes(coding);
  int64_t group = 1;  // columns of a scale
  if (panel.scales > 0)
    group = coding.kind == Coding::Kind::kFp8 ? kFp8Square : group_columns(coding);
  // Pieces of whole units and whole groups, but of FP8, whose last square may be partial.
  const int64_t whole = std::max(form.columns, group);
  std::array<std::byte, 4 * kWordsMax> codes_row;
  std::array<std::byte, 4 * 16> scales_row, biases_row;
  PENSTOCK_CHECK(row_bytes(coding, whole).codes <= codes_row.size());
  for (int64_t first = 0; first < columns; first += whole) {
    const int64_t count = std::min(whole, columns - first);
    const RowBytes piece = row_bytes(coding, count);
    for (int64_t unit = 0; unit < count / form.columns; ++unit) {
      get_codes(
          coding, form.columns,
          codes + static_cast<uint64_t>((first / form.columns + unit)) * panel_unit_bytes(form),
          lane, codes_row.data() + unit * form.bytes);
    }
    const auto numbers = [&](const std::byte* plane, uint64_t plane_bytes, uint64_t bytes,
                             std::byte* out) {
      for (size_t i = 0; i * size < bytes; ++i) {
        const size_t number = static_cast<size_t>(first / group) + i;
        std::memcpy(out + i * size, plane + index * plane_bytes + (number * kRows + lane) * size,
                    size);
      }
    };
    if (panel.scales > 0) numbers(rows.scales, panel.scales, piece.scales, scales_row.data());
    if (panel.biases > 0) numbers(rows.biases, panel.biases, piece.biases, biases_row.data());
    decode_row(coding, std::span(codes_row).first(piece.codes),
               std::span(scales_row).first(piece.scales), std::span(biases_row).first(piece.biases),
               values.subspan(static_cast<size_t>(first), static_cast<size_t>(count)));
  }
}

}  // namespace penstock
