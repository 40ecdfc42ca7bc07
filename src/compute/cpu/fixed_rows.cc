#include "compute/cpu/fixed_rows.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "compute/fixed16.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/fixed_rows.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/fixed_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {
namespace {

// The largest |x| of a block. As bits, what is not a number is larger than all numbers.
inline float LargestOf(const float* x) {
  IntVec largest = hn::Zero(Ints());
  for (int64_t c = 0; c < kGroupColumns; c += kLanes) {
    const FloatVec size = hn::Abs(hn::LoadU(Floats(), x + c));
    largest = hn::Max(largest, hn::BitCast(Ints(), size));
  }
  return std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(Ints(), largest)));
}

// The factors and scales of some blocks, sixteen or fewer at a time, as FixedScale has them.
struct FixedScales {
  static constexpr int64_t kBlocks = 16;
  alignas(64) float factors[kBlocks];
  alignas(64) float scales[kBlocks];

  HWY_INLINE FixedScales(const float* x, int64_t blocks) {
    alignas(64) float largest[kBlocks] = {};
    for (int64_t b = 0; b < blocks; ++b) largest[b] = LargestOf(x + b * kGroupColumns);
    const Floats d;
    for (int64_t b = 0; b < kBlocks; b += kLanes) {
      const FloatVec size = hn::Load(d, largest + b);
      const FloatVec m = hn::Max(size, hn::Set(d, kFixedLargestMin));
      const FloatVec code_max = hn::Set(d, static_cast<float>(kFixedCodeMax));
      hn::Store(hn::Mul(code_max, Reciprocal(d, m)), d, factors + b);
      const FloatVec none = hn::Set(d, std::numeric_limits<float>::quiet_NaN());
      const FloatVec scale = hn::Mul(m, hn::Set(d, kFixedCodeStep));
      const auto is_number = hn::Lt(size, hn::Set(d, kFixedLargestEnd));
      hn::Store(hn::IfThenElse(is_number, scale, none), d, scales + b);
    }
  }
};

// One row of one block, numbers: [64]; -> the sum of what they stand for.
HWY_INLINE float BlockToFixed(const float* x, float factor, float scale, int16_t* numbers) {
  if (scale != scale) {  // what is not finite shall show in the products
    std::fill_n(numbers, kGroupColumns, int16_t{0});
    return scale;
  }
  const FloatVec factors = hn::Set(Floats(), factor);
  const FloatVec round = hn::Set(Floats(), exact::kRound);
  const IntVec round_bits = hn::Set(Ints(), std::bit_cast<int32_t>(exact::kRound));
  const hn::Rebind<int16_t, Ints> narrow;
  IntVec totals = hn::Zero(Ints());
  for (int64_t c = 0; c < kGroupColumns; c += kLanes) {
    const FloatVec shifted = TwiceRounded(hn::LoadU(Floats(), x + c), factors, round);
    const IntVec number = hn::Sub(hn::BitCast(Ints(), shifted), round_bits);
    totals = hn::Add(totals, number);
    hn::StoreU(hn::DemoteTo(narrow, number), narrow, numbers + c);
  }
  return static_cast<float>(hn::GetLane(hn::SumOfLanes(Ints(), totals))) * scale;
}

void ToFixed(const float* x, int64_t blocks, int16_t* numbers, float* scales, float* sums) {
  for (int64_t first = 0; first < blocks; first += FixedScales::kBlocks) {
    const int64_t end = std::min(first + FixedScales::kBlocks, blocks);
    const FixedScales found(x + first * kGroupColumns, end - first);
    for (int64_t block = first; block < end; ++block) {
      const int64_t start = block * kGroupColumns;
      scales[block] = found.scales[block - first];
      sums[block] =
          BlockToFixed(x + start, found.factors[block - first], scales[block], numbers + start);
    }
  }
}

}  // namespace

ToFixedKernel ToFixedOf() {
  return &ToFixed;
}
}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(ToFixedOf);
ToFixedKernel to_fixed_kernel(int64_t target) {
  return PENSTOCK_AT_TARGET(ToFixedOf, target)();
}
}  // namespace penstock
#endif
