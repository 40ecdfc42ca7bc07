#include "compute/kv_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace penstock {
namespace {

constexpr float kLargestCode = 127;

// Zero: all of the group comes back as zeros. NaN: all of it as NaN.
float scale_of(const float* x, int64_t count) {
  float largest = 0;
  bool is_finite = true;
  for (int64_t i = 0; i < count; ++i) {
    is_finite = is_finite && std::isfinite(x[i]);
    largest = std::max(largest, std::fabs(x[i]));
  }
  if (!is_finite) return std::numeric_limits<float>::quiet_NaN();
  const float scale = largest / kLargestCode;
  if (scale < std::numeric_limits<float>::min()) return 0;
  // The last place of the largest numbers there are.
  return std::isfinite(scale * kLargestCode) ? scale : std::nextafter(scale, 0.0f);
}

// To the nearest integer, ties to even, of what is at most a hundred and some.
int8_t code_of(float x, float scale) {
  constexpr float kWhole = 0x1.8p23f;  // the sums' last place is one
  const float rounded = (x / scale + kWhole) - kWhole;
  return static_cast<int8_t>(std::clamp(rounded, -kLargestCode, kLargestCode));
}

}  // namespace

void encode_kv(const float* x, int64_t head_dim, float* row) {
  const int64_t groups = kv_groups(head_dim);
  auto* codes = reinterpret_cast<int8_t*>(row + groups);
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t begin = group * kKvGroup;
    const int64_t end = std::min(begin + kKvGroup, head_dim);
    const float scale = scale_of(x + begin, end - begin);
    row[group] = scale;
    const bool has_codes = scale > 0;
    for (int64_t i = begin; i < end; ++i) codes[i] = has_codes ? code_of(x[i], scale) : int8_t{0};
  }
  const int64_t bytes = (kv_row_floats(KvForm::kCodes8, head_dim) - groups) * 4;
  std::fill(codes + head_dim, codes + bytes, int8_t{0});
}

void decode_kv(const float* row, int64_t head_dim, float* x) {
  const auto* codes = reinterpret_cast<const int8_t*>(row + kv_groups(head_dim));
  for (int64_t i = 0; i < head_dim; ++i) {
    x[i] = static_cast<float>(codes[i]) * row[i / kKvGroup];
  }
}

}  // namespace penstock
