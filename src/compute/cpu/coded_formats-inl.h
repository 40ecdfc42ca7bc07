// What the formats of coded panels share: nibbles, tables, halves (coded_product-inl.h).
//
// A format has kUnitBlocks blocks of 64 columns and kUnitBytes bytes in a unit of a panel, kGroups
// groups of equal scale in a block, kHasMinima or kOffset, kOrder; Four<block, n>() for the n-th four
// codes of a block and Scales<block>().

#if defined(PENSTOCK_COMPUTE_CPU_CODED_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PENSTOCK_COMPUTE_CPU_CODED_FORMATS_INL_H_
#undef PENSTOCK_COMPUTE_CPU_CODED_FORMATS_INL_H_
#else
#define PENSTOCK_COMPUTE_CPU_CODED_FORMATS_INL_H_
#endif

#include <array>

#include "compute/cpu/coded_product-inl.h"
#include "quant/codebook_blocks.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

// Values of codes that name one, all above zero.
inline constexpr int kTableOffset = 128;
constexpr std::array<uint8_t, 16> AboveZero(const std::array<int8_t, 16>& values) {
  std::array<uint8_t, 16> table = {};
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<uint8_t>(values[i] + kTableOffset);
  }
  return table;
}
inline constexpr std::array<uint8_t, 16> kIq4Table = AboveZero(kIq4Values);
inline constexpr std::array<uint8_t, 16> kE2m1Table = AboveZero(kE2m1Doubled);

template <uint32_t kMask>
HWY_INLINE WordVec MaskWord(WordVec word) {
  return hn::And(word, hn::Set(Words(), kMask));
}

// The low or the high nibbles of a word.
template <bool kHigh>
HWY_INLINE WordVec NibblesOfWord(const uint32_t* unit, int word, int v) {
  const WordVec both = LoadWord(unit, word, v);
  return MaskBytes<15>(kHigh ? hn::ShiftRight<4>(both) : both);
}

// The n-th four of two blocks of sixteen bytes: all low nibbles of a block, then its high ones.
template <int kN>
HWY_INLINE WordVec NibblesOf(const uint32_t* unit, int v) {
  return NibblesOfWord<kN % 8 >= 4>(unit, kN / 8 * 4 + kN % 4, v);
}

// The n-th four of nibbles in the order of columns: the even columns of a word, then the odd ones.
template <int kN>
HWY_INLINE WordVec NibbleFours(const uint32_t* unit, int v) {
  return NibblesOfWord<kN % 2 == 1>(unit, kN / 2, v);
}
inline constexpr std::array<uint8_t, 16> kNibbleOrder = {0, 2,  4,  6,  1, 3,  5,  7,
                                                         8, 10, 12, 14, 9, 11, 13, 15};

HWY_INLINE void TwoHalves(const uint32_t* unit, int word, int v, FloatVec* numbers) {
  const WordVec both = LoadWord(unit, word, v);
  numbers[0] = LowHalf(both);
  numbers[1] = HighHalf(both);
}

template <int kWords, bool kMinima, int kBelowZero>
struct PairOfBlocks {
  static constexpr int kUnitBlocks = 1;
  static constexpr int64_t kUnitBytes = kWords * 64;
  static constexpr int kGroups = 2;
  static constexpr bool kHasMinima = kMinima;
  static constexpr int kOffset = kBelowZero;
  static constexpr std::array<uint8_t, 16> kOrder = kNaturalOrder;
};

template <int kWords, bool kHasHalf, int kGroupsOf64, bool kMinima, int kBelowZero>
struct SuperBlock {
  static constexpr int kUnitBlocks = 4;
  static constexpr int64_t kUnitBytes = kWords * 64 + (kHasHalf ? 32 : 0);
  static constexpr int kGroups = kGroupsOf64;
  static constexpr bool kHasMinima = kMinima;
  static constexpr int kOffset = kBelowZero;
  static constexpr std::array<uint8_t, 16> kOrder = kNaturalOrder;
};

// The sixteen numbers `index` of a plane of scales or biases.
HWY_INLINE FloatVec NumbersAt(DType dtype, const std::byte* plane, int64_t index, int v) {
  if (dtype == DType::kF32) {
    return hn::LoadU(Floats(), reinterpret_cast<const float*>(plane) + index * 16 + v * kLanes);
  }
  const WordVec halves = LoadHalves(plane + index * 32, v);
  if (dtype == DType::kF16) return FloatOfHalf(halves);
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(halves));
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
