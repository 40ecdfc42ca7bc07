#include "quant/row_panels.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "quant/block_load.h"
#include "quant/fp8.h"
#include "quant/lane_words.h"
#include "quant/split_codes.h"
#include "quant/unit_forms.h"

namespace penstock {
namespace {

constexpr size_t kRows = kPanelRows;
constexpr int64_t kGroupsMax = 256;  // columns of an affine group

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

void put_codes(const Coding& coding, int64_t columns, const PlaneRows& rows, std::byte* out) {
  const UnitForm& form = unit_form_of(coding);
  const bool is_split = has_split_codes(coding);
  const auto unit_bytes = static_cast<size_t>(form.bytes);
  const size_t word_bytes = form.words * kRows * sizeof(uint32_t);
  const auto count = static_cast<size_t>(rows.count);
  RowPlaces places;  // where there is no row, the first stands for it, and becomes zeros below
  for (size_t r = 0; r < kRows; ++r) places[r] = rows.of(static_cast<int64_t>(r < count ? r : 0));
  for (int64_t unit = 0; unit < columns / form.columns; ++unit, out += panel_unit_bytes(form)) {
    if (is_split) {
      std::array<std::byte, kUnitWordsMax * kRows * sizeof(uint32_t)> words;
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
  const UnitForm& form = unit_form_of(coding);
  const bool is_split = has_split_codes(coding);
  const auto unit_bytes = static_cast<size_t>(form.bytes);
  for (int64_t unit = 0; unit < columns / form.columns; ++unit, row += unit_bytes) {
    const std::byte* from = panel + static_cast<uint64_t>(unit) * panel_unit_bytes(form);
    if (is_split) {
      std::array<uint32_t, kUnitWordsMax * kRows> words;
      std::memcpy(words.data(), from, form.words * kRows * 4);
      join_codes(coding.affine.bits, words.data(), lane, {row, unit_bytes});
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
  const int64_t unit = unit_form_of(coding).columns;
  return unit > 0 && columns % unit == 0;
}

int64_t unit_columns(const Coding& coding) {
  return unit_form_of(coding).columns;
}

RowBytes row_panel_bytes(const Coding& coding, int64_t columns) {
  PENSTOCK_CHECK(has_row_panels(coding, columns));
  const RowBytes row = row_bytes(coding, columns);
  const UnitForm& form = unit_form_of(coding);
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
  const UnitForm& form = unit_form_of(coding);
  const size_t size = number_bytes(coding);
  int64_t group = 1;  // columns of a scale
  if (panel.scales > 0)
    group = coding.kind == Coding::Kind::kFp8 ? kFp8Square : group_columns(coding);
  // Pieces of whole units and whole groups, but of FP8, whose last square may be partial.
  const int64_t whole = std::max(form.columns, group);
  std::array<std::byte, 4 * kUnitWordsMax> codes_row;
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
