// Functions of a number that have the same bits on every device: exponential, reciprocal and what
// is made of them.
//
// Additions and multiplications of f32 and all operations of integers are rounded alike everywhere;
// division, square root, exp and fused multiply-add are not (a device may be off by some units in
// the last place, a mathematical library by as much as it likes). So the procedure is laid down
// here, not the result: what each function returns is what these lines give, one rounding for each
// operation as written, in the order written. The kernels for vectors (cpu/exact_math-inl.h) and
// for devices repeat them operation by operation, and tests compare them bit for bit.
//
// A device may replace subnormal numbers by zero, so no result that is used has gone through one:
// the functions have domains in which none occurs, and products that may be tiny are
// exact_product(), which is zero below 2^-100. Sums of numbers that are 0 or at least 2^-100 in
// size are multiples of 2^-123, and so never subnormal.
//
//   function         domain                    result is off by at most (units in its last place)
//   exact_exp        x <= 88                   1.0     exactly 0 below -87
//   exact_reciprocal 2^-100 <= |d| <= 2^100    1.2
//   exact_rsqrt      2^-100 <= d               1.3
//   exact_sigmoid    all                       3.0     exactly 0 below -87
//   exact_silu       |x| >= 2^-100 or 0        3.5
//   exact_softplus   x <= 88                   3.0
//
// Outside of its domain a function returns something, the same on every processor, but perhaps not
// on a device. What is not a number stays so; which one it is, is left open.
//
// exact_fma() is different: one rounding, as hardware with fused multiply-add does it, for
// processors without. Products of plain matrices and the ops outside of the experts use it
// (compute/panel.h, docs/decisions.md).
//
// Source  Newton's iterations; coefficients by Remez's algorithm for these intervals
#pragma once

#include <bit>
#include <cstdint>

namespace penstock {

// What the vector kernels repeat.
namespace exact {
inline constexpr float kRound = 0x1.8p23f;  // x + kRound - kRound: the nearest even integer
inline constexpr float kLog2E = 0x1.715476p+0f;
inline constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: its product with an exponent is exact
inline constexpr float kLn2Low = 0x1.7f7d1cp-20f;
inline constexpr float kSmallestExp = -87.0f;
// exp(r) = 1 + (r + r^2 (c2 + r (c3 + ...))) for |r| <= ln 2 / 2, to 3.1e-9.
inline constexpr float kExp2 = 0x1.fffffcp-2f, kExp3 = 0x1.555492p-3f, kExp4 = 0x1.5558f2p-5f,
                       kExp5 = 0x1.123a20p-7f, kExp6 = 0x1.6a23d0p-10f;
// kReciprocalSeed minus the bits of d is 1 / d to 5.1 %, and this minus half of them its root to
// 3.5 %: three iterations bring both to the last bit.
inline constexpr uint32_t kReciprocalSeed = 0x7ef31200u;
inline constexpr uint32_t kRsqrtSeed = 0x5f3759dfu;
inline constexpr float kSmallestProduct = 0x1p-100f;
// Of a score and the largest of its row: below it the weight is 0. e^-27 is more than 2^-39, and products of such
// weights with values of at least 2^-40 are multiples of 2^-126, so that no sum of them is subnormal.
inline constexpr float kSmallestDifference = -27.0f;
}  // namespace exact

inline float exact_exp(float x) {
  const float shifted = x * exact::kLog2E + exact::kRound;  // the exponent, in the low bits
  const float exponent = shifted - exact::kRound;
  const float r = (x - exponent * exact::kLn2High) - exponent * exact::kLn2Low;
  float tail = exact::kExp6 * r + exact::kExp5;
  tail = tail * r + exact::kExp4;
  tail = tail * r + exact::kExp3;
  tail = tail * r + exact::kExp2;
  const float mantissa = 1.0f + (r + (r * r) * tail);
  const float power = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u);
  return x < exact::kSmallestExp ? 0.0f : mantissa * power;
}

inline float exact_reciprocal(float d) {
  float y = std::bit_cast<float>(exact::kReciprocalSeed - std::bit_cast<uint32_t>(d));
  for (int i = 0; i < 3; ++i) y = y + y * (1.0f - d * y);
  return y;
}

// 1 / sqrt(d)
inline float exact_rsqrt(float d) {
  const float half = 0.5f * d;
  float y = std::bit_cast<float>(exact::kRsqrtSeed - (std::bit_cast<uint32_t>(d) >> 1));
  for (int i = 0; i < 3; ++i) y = y + y * (0.5f - (half * y) * y);
  return y;
}

// x * y, and 0 where that is smaller than 2^-100.
inline float exact_product(float x, float y) {
  const float product = x * y;
  const bool is_small = product < exact::kSmallestProduct && product > -exact::kSmallestProduct;
  return is_small ? 0.0f : product;
}

// 1 / (1 + e^-x); e^-|x| is at most 1, so the reciprocal is of a number from 1 to 2.
inline float exact_sigmoid(float x) {
  const float small = exact_exp(x < 0 ? x : -x);
  return (x < 0 ? small : 1.0f) * exact_reciprocal(1.0f + small);
}

inline float exact_silu(float x) {
  return x * exact_sigmoid(x);
}

// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), the latter as 2 atanh(e / (2 + e)).
inline float exact_softplus(float x) {
  if (x > 20) return x;
  const float small = exact_exp(x < 0 ? x : -x);
  const float s = small * exact_reciprocal(2.0f + small);
  const float z = s * s;
  float tail = 0x1.f1733ep-4f;  // atanh(s) / s = 1 + z (...) for z <= 1/9, to 1.1e-10
  tail = tail * z + 0x1.b6e6ccp-4f;
  tail = tail * z + 0x1.2508b2p-3f;
  tail = tail * z + 0x1.9996b0p-3f;
  tail = tail * z + 0x1.555558p-2f;
  const float log1p = 2.0f * (s + s * (z * tail));
  return x > 0 ? x + log1p : log1p;
}

// x * y + z with one rounding. The product of two f32 is exact in f64; the sum is rounded there to
// the neighbour with an odd last bit, which leaves the second rounding nothing to be wrong about.
inline float exact_fma(float x, float y, float z) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(x, y, z);
#else
  const double product = static_cast<double>(x) * static_cast<double>(y);
  const double addend = z;
  const double sum = product + addend;
  // What the sum lacks: it and the sum together are exact.
  const double part = sum - product;
  const double rest = (product - (sum - part)) + (addend - part);
  uint64_t bits = std::bit_cast<uint64_t>(sum);
  const bool is_inexact = rest < 0 || rest > 0;  // no number: the sum is none either, or infinite
  if (is_inexact && (bits & 1) == 0) {
    bits += (rest > 0) == (sum > 0) ? 1 : -1;
  }
  return static_cast<float>(std::bit_cast<double>(bits));
#endif
}

}  // namespace penstock
