// How weights become codes: the quantisers, for groups of 64 and for whole panels.
//
// kRound is quantise_group() (compute/panel.h): codes spread from the smallest value to the largest.
// At two or three bits that spends them on values that hardly occur. kSearch draws the ends in by
// several amounts, each on its own; from each such start codes, and the least-squares scale and bias
// for these codes, are computed in turns. Compared is the error with the numbers as they are stored,
// in bf16, and the rounded group is one of the candidates: no group becomes worse than by rounding.
//
//   miss(c) = scale * code(c) + bias - value(c)
//   error   = sum of i(c) miss(c)^2 + kCommon * (sum of i(c) miss(c) value(c))^2 / sum of i(c) value(c)^2
//
// i is the importance, 1 unless told. The second term is what misses have in common with the values:
// the scale of least squares makes all weights a little smaller, by a tenth at two bits, so every
// product shrinks, in one direction through all experts and layers, where other misses cancel.
//
// All is done in f32 with sums in one order, so a group's bits depend on its values alone.
//
// Range    Values up to 1e38 in size; a group in which one is larger or no number is rounded. Scales
//          and biases are 0 or at least 2^-28 in size, as the arithmetic asks for.
// Memory   none
// Source   Badri and Shaji, "Half-Quadratic Quantization" (2023), for the aim; codes and their line in
//          turns are Lloyd's method with evenly spaced levels; the second term: docs/decisions.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "compute/panel.h"

namespace penstock {

enum class Quantiser : uint8_t { kRound, kSearch };

inline constexpr Quantiser kQuantisers[] = {Quantiser::kRound, Quantiser::kSearch};

constexpr std::string_view name_of(Quantiser quantiser) {
  return quantiser == Quantiser::kRound ? "round" : "search";
}

constexpr std::optional<Quantiser> parse_quantiser(std::string_view name) {
  for (const Quantiser quantiser : kQuantisers) {
    if (name_of(quantiser) == name) return quantiser;
  }
  return std::nullopt;
}

inline constexpr float kCommon = 8;

// 2 to 4 bits are searched; 8 are rounded, as nothing is to be gained. importance: of each value, not
// negative and not above 1e30; empty: all alike.
AffineGroup search_group(std::span<const float, kGroupColumns> values, int bits,
                         std::span<const float> importance = {});

// The error above.
double group_error(std::span<const float, kGroupColumns> values, const AffineGroup& group,
                   std::span<const float> importance = {});

// As make_panels(), of a quantised type.
void quantise_panels(DType dtype, Quantiser quantiser, std::span<const float> values, int64_t rows,
                     int64_t columns, std::span<std::byte> out);

// One row of a block of panels that were zeros. In panel.cc, which knows the layout.
void put_group(DType dtype, const AffineGroup& group, int64_t row, std::byte* block);

}  // namespace penstock
