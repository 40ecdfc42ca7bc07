// Keys and values of a position in eight bits: lossy, and only for whom asks for it by name.
//
// A row is one kv head's key or value at one position. Its components are cut into groups of
// kKvGroup, the last one may be shorter. Each group has a scale s = largest |x| / 127, and codes
// c = x / s, rounded to the nearest integer (ties to even), from -127 to 127; a component comes back
// as c * s, at most half a scale away from x (and half a unit in the last place of x).
//
//   floats  ceil(head_dim / kKvGroup)   scales
//   bytes   head_dim                    codes, then zeros up to a whole float
//
// A row is made of its own components alone, when its position is written, and never again: what
// attention reads does not depend on chunks, threads or instruction sets. Each operation is one
// rounding of IEEE arithmetic. A group that holds anything which is no finite number has a scale
// that is none, so that all its components come back as NaN. One whose scale would not be a normal
// number (nothing above 1.5e-36) comes back as zeros.
#pragma once

#include <cstdint>

namespace penstock {

enum class KvForm { kFloat32, kCodes8 };

inline constexpr int64_t kKvGroup = 64;

constexpr int64_t kv_groups(int64_t head_dim) {
  return (head_dim + kKvGroup - 1) / kKvGroup;
}

// Of a row in a page.
constexpr int64_t kv_row_floats(KvForm form, int64_t head_dim) {
  return form == KvForm::kFloat32 ? head_dim : kv_groups(head_dim) + (head_dim + 3) / 4;
}

constexpr int bits_of(KvForm form) {
  return form == KvForm::kFloat32 ? 32 : 8;
}

// x: [head_dim]; row: kv_row_floats(KvForm::kCodes8, head_dim). They do not overlap.
void encode_kv(const float* x, int64_t head_dim, float* row);
void decode_kv(const float* row, int64_t head_dim, float* x);

}  // namespace penstock
