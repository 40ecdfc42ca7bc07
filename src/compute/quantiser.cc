#include "compute/quantiser.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace penstock {
namespace {

constexpr size_t kLanes = 8;  // sums that run side by side; they are added up in one order
constexpr float kSmallest = 0x1p-28f;
constexpr float kLargest = 1e38f;
// A candidate must be better by more than what rounding does to the sums of 64 terms.
constexpr float kClearly = 1.0f - 0x1p-12f;
constexpr int kBitsMax = 4;  // that are searched
// The ends of the range are drawn in by 0, 1 and 2 of these parts of it, for 2, 3 and 4 bits, and
// each start gets so many turns. On the demo model's weights five parts and six turns, at a quarter
// of the speed, take no more than another hundredth off the error.
constexpr float kDrawnIn[] = {0.09f, 0.06f, 0.04f};
constexpr int kStarts = 3;
constexpr int kTurns = 4;

using Sums = std::array<float, kLanes>;

float total(const Sums& sums) {
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

float round_to_bf16(float value) {
  return bf16_to_f32(f32_to_bf16(value));
}

// A group scaled by a power of two to values below 2, so that no square overflows.
struct Group {
  alignas(32) float values[kGroupLength];
  alignas(32) float importance[kGroupLength];
  float steps = 0;        // the largest code
  float smallest = 0;     // of a scale or bias that is not 0, scaled too
  float sum_weights = 0;  // importance
  float sum_values = 0;   // importance * value
  float sum_squares = 0;  // importance * value^2
  float low = 0, high = 0;
  float unit = 0;  // the power of two
};

struct Line {
  float scale = 0, bias = 0;
};

// Of the codes that fit a line best.
struct Fit {
  float error = 0;
  float codes = 0, squares = 0,
        products = 0;  // sums of importance times code, code^2, code * value
};

float code_of(float value, const Line& line, float inverse, float steps) {
  const float exact = (value - line.bias) * inverse;
  const float positive = exact > 0 ? exact : 0.0f;
  const float clamped = positive < steps ? positive : steps;
  return (clamped + 0x1p23f) - 0x1p23f;  // to the nearest even
}

Fit fit(const Group& group, const Line& line) {
  const float inverse = 1.0f / line.scale;
  Sums error{}, codes{}, squares{}, products{};
  for (size_t c = 0; c < kGroupLength; c += kLanes) {
    for (size_t i = 0; i < kLanes; ++i) {
      const float value = group.values[c + i];
      const float weight = group.importance[c + i];
      const float code = code_of(value, line, inverse, group.steps);
      const float miss = value - (line.scale * code + line.bias);
      const float weighted = weight * code;
      error[i] += weight * (miss * miss);
      codes[i] += weighted;
      squares[i] += weighted * code;
      products[i] += weighted * value;
    }
  }
  Fit fit = {total(error), total(codes), total(squares), total(products)};
  const float common = line.scale * fit.products + line.bias * group.sum_values - group.sum_squares;
  fit.error += kCommon * common * (common / group.sum_squares);
  return fit;
}

// What a line is multiplied with for the least error with these codes: it moves both ends.
float gain(const Group& group, const Fit& fit, const Line& line) {
  const float product = line.scale * fit.products + line.bias * group.sum_values;
  const float square = line.scale * line.scale * fit.squares +
                       2 * line.scale * line.bias * fit.codes +
                       line.bias * line.bias * group.sum_weights;
  const float gain =
      product * (1 + kCommon) / (square + kCommon * product * (product / group.sum_squares));
  return gain > 0.5f && gain < 2.0f ? gain : 1.0f;
}

// The line of least error for the codes of a fit, as it can be stored.
Line best_line(const Group& group, const Fit& fit, const Line& otherwise) {
  const float determinant = group.sum_weights * fit.squares - fit.codes * fit.codes;
  if (!(determinant > 1e-6f * group.sum_weights * fit.squares)) return otherwise;
  Line line;
  line.scale = (group.sum_weights * fit.products - fit.codes * group.sum_values) / determinant;
  line.bias = (group.sum_values - line.scale * fit.codes) / group.sum_weights;
  const float by = gain(group, fit, line);
  line.scale = round_to_bf16(line.scale * by);
  line.bias = round_to_bf16(line.bias * by);
  if (std::fabs(line.bias) < group.smallest) line.bias = 0;
  return std::fabs(line.scale) >= group.smallest ? line : otherwise;
}

void store(const Group& group, const Line& line, AffineGroup& out) {
  out.scale = f32_to_bf16(line.scale * group.unit);
  out.bias = f32_to_bf16(line.bias * group.unit);
  const float inverse = 1.0f / line.scale;
  for (size_t c = 0; c < kGroupLength; ++c) {
    out.codes[c] = static_cast<uint8_t>(code_of(group.values[c], line, inverse, group.steps));
  }
}

// Nothing where there is nothing to search for: constant, tiny or no numbers, no importance.
std::optional<Group> scaled_group(std::span<const float, kGroupColumns> values, int bits,
                                  std::span<const float> importance) {
  float largest = 0;
  for (const float value : values) {
    const float size = std::fabs(value);
    if (!(size <= kLargest)) return std::nullopt;
    largest = std::max(largest, size);
  }
  if (largest < kSmallest) return std::nullopt;
  const int exponent = std::ilogb(largest);
  const float inverse_unit = std::ldexp(1.0f, -exponent);
  Group group;
  group.unit = std::ldexp(1.0f, exponent);
  group.steps = static_cast<float>((1u << bits) - 1u);
  group.smallest = kSmallest * inverse_unit;
  group.low = 2;
  group.high = -2;
  Sums weights{}, sums{}, squares{};
  for (size_t c = 0; c < kGroupLength; ++c) {
    const float value = values[c] * inverse_unit;
    const float weight = importance.empty() ? 1.0f : importance[c];
    group.values[c] = value;
    group.importance[c] = weight;
    group.low = std::min(group.low, value);
    group.high = std::max(group.high, value);
    weights[c % kLanes] += weight;
    sums[c % kLanes] += weight * value;
    squares[c % kLanes] += weight * value * value;
  }
  group.sum_weights = total(weights);
  group.sum_values = total(sums);
  group.sum_squares = total(squares);
  if (!(group.sum_squares > 0) || !(group.high > group.low)) return std::nullopt;
  return group;
}

// From one start: the best of its turns, if it is better than `least`.
void take_turns(const Group& group, Line line, float& least, Line& found) {
  for (int turn = 0; turn <= kTurns; ++turn) {
    const Fit now = fit(group, line);
    // The start itself cannot be stored: it is not in bf16.
    if (turn > 0 && now.error < least) {
      least = now.error;
      found = line;
    }
    const Line next = best_line(group, now, line);
    if (next.scale == line.scale && next.bias == line.bias) return;
    line = next;
  }
}

// A line with an error below `least`, or one with scale 0.
Line search_line(const Group& group, int bits, float least) {
  const float range = group.high - group.low;
  const float part = kDrawnIn[bits - 2];
  Line found;
  for (int low = 0; low < kStarts; ++low) {
    for (int high = 0; high < kStarts; ++high) {
      const float from_low = part * static_cast<float>(low);
      const float from_high = part * static_cast<float>(high);
      const float scale = range * (1.0f - from_low - from_high) / group.steps;
      if (!(scale > group.smallest)) continue;
      take_turns(group, {scale, group.low + from_low * range}, least, found);
    }
  }
  return found;
}

}  // namespace

double group_error(std::span<const float, kGroupColumns> values, const AffineGroup& group,
                   std::span<const float> importance) {
  double error = 0, common = 0, squares = 0;
  for (size_t c = 0; c < kGroupLength; ++c) {
    const double stored =
        double{bf16_to_f32(group.scale)} * group.codes[c] + double{bf16_to_f32(group.bias)};
    const double weight = importance.empty() ? 1.0 : double{importance[c]};
    const double miss = stored - values[c];
    error += weight * miss * miss;
    common += weight * miss * values[c];
    squares += weight * values[c] * values[c];
  }
  return squares > 0 ? error + kCommon * common * (common / squares) : error;
}

AffineGroup search_group(std::span<const float, kGroupColumns> values, int bits,
                         std::span<const float> importance) {
  PENSTOCK_CHECK(importance.empty() || importance.size() == kGroupLength);
  AffineGroup best = quantise_group(values, bits);
  if (bits > kBitsMax) return best;
  const std::optional<Group> group = scaled_group(values, bits, importance);
  if (!group) return best;
  const double unit = group->unit;
  const double rounded = group_error(values, best, importance) / (unit * unit);
  const Line line = search_line(*group, bits, static_cast<float>(rounded) * kClearly);
  if (line.scale != 0) store(*group, line, best);
  return best;
}

void quantise_panels(DType dtype, Quantiser quantiser, std::span<const float> values, int64_t rows,
                     int64_t columns, std::span<std::byte> out) {
  if (quantiser == Quantiser::kRound) return make_panels(dtype, values, rows, columns, out);
  PENSTOCK_CHECK(is_quantised(dtype) && columns % kGroupColumns == 0);
  PENSTOCK_CHECK(rows >= 0 && std::ssize(values) == rows * columns);
  PENSTOCK_CHECK(std::ssize(out) == panel_bytes(dtype, rows, columns));
  std::memset(out.data(), 0, out.size());
  const int64_t blocks = columns / kGroupColumns;
  for (int64_t row = 0; row < rows; ++row) {
    std::byte* block = out.data() + row / kPanelRows * blocks * block_bytes(dtype);
    for (int64_t c = 0; c < columns; c += kGroupColumns, block += block_bytes(dtype)) {
      const auto group =
          values.subspan(static_cast<size_t>(row * columns + c)).first<kGroupLength>();
      put_group(dtype, search_group(group, bits_of(dtype)), row % kPanelRows, block);
    }
  }
}

}  // namespace penstock
