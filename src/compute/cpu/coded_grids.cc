// Products of coded panels whose codes name points of a grid: IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
// Words of a unit: quant/row_panels.h; where the bits are in them: quant/grid_blocks.h.
#include "compute/cpu/coded_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/coded_grids.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/coded_formats-inl.h"
#include "quant/grid_blocks.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

// Numbers of a grid are below 64, with signs; so much more they are kept.
constexpr int kGridOffset = 64;

template <int kWords, int kGroupsOf64>
using GridBlock = SuperBlock<kWords, true, kGroupsOf64, false, kGridOffset>;

HWY_INLINE WordVec PointsAt(const uint32_t* grid, WordVec index) {
  return hn::GatherIndex(Words(), grid, hn::BitCast(Ints(), index));
}

// Four numbers of a grid, those negative whose bit of the low four is set; other bits are ignored.
HWY_INLINE WordVec WithSigns(WordVec points, WordVec signs) {
  // A bit of each to the bottom of its byte, then to all bits of it.
  const WordVec spread = hn::Mul(MaskWord<15>(signs), hn::Set(Words(), 0x00204081u));
  const WordVec ones = MaskBytes<1>(spread);
  const WordVec negative = hn::Sub(hn::ShiftLeft<8>(ones), ones);
  // 64 + p - 2 p: no byte borrows from another.
  return hn::Sub(hn::Add(points, hn::Set(Words(), 0x40404040u)),
                 hn::ShiftLeft<1>(hn::And(points, negative)));
}

// The first or the last four of eight signs, whose code of seven bits is the low ones of each lane:
// the eighth makes the number of minus signs even.
template <bool kLast>
HWY_INLINE WordVec FourSigns(WordVec code) {
  if constexpr (!kLast) return code;
  const WordVec seven = MaskWord<127>(code);
  WordVec odd = hn::Xor(seven, hn::ShiftRight<4>(seven));
  odd = hn::Xor(odd, hn::ShiftRight<2>(odd));
  odd = MaskWord<1>(hn::Xor(odd, hn::ShiftRight<1>(odd)));
  return hn::Or(hn::ShiftRight<4>(seven), hn::ShiftLeft<3>(odd));
}

template <int kByte>
HWY_INLINE WordVec ByteOfWord(const uint32_t* unit, int word, int v) {
  return MaskWord<255>(hn::ShiftRight<8 * kByte>(LoadWord(unit, word, v)));
}

// The number of the word of a grid of eights that has the first or the last four of a row.
template <bool kLast>
HWY_INLINE WordVec HalfOfRow(WordVec row) {
  const WordVec first = hn::ShiftLeft<1>(row);
  return kLast ? hn::Or(first, hn::Set(Words(), 1u)) : first;
}

// d (s + 1/2) and a power of two.
HWY_INLINE FloatVec GridScale(FloatVec d, WordVec s, float times) {
  const FloatVec with_half = hn::Add(FloatOf(s), hn::Set(Floats(), 0.5f));
  return hn::Mul(hn::Mul(d, with_half), hn::Set(Floats(), times));
}
template <class Format>
HWY_INLINE FloatVec HalfBehind(const uint32_t* unit, int v) {
  return FloatOfHalf(LoadHalves(unit + Format::kUnitBytes / 4 - 8, v));
}

// Of IQ2_XS and IQ2_S: groups 4b to 4b + 3 are the nibbles of two bytes.
template <int kBlock>
HWY_INLINE void ScalesOfTwo(const uint32_t* unit, int first_word, FloatVec d, int v,
                            FloatVec* scales) {
  const WordVec s = hn::ShiftRight<kBlock % 2 * 16>(LoadWord(unit, first_word + kBlock / 2, v));
  scales[0] = GridScale(d, MaskWord<15>(s), 0.25f);
  scales[1] = GridScale(d, MaskWord<15>(hn::ShiftRight<4>(s)), 0.25f);
  scales[2] = GridScale(d, MaskWord<15>(hn::ShiftRight<8>(s)), 0.25f);
  scales[3] = GridScale(d, MaskWord<15>(hn::ShiftRight<12>(s)), 0.25f);
}

struct CodedIq2Xxs : GridBlock<16, 2> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    constexpr int kGroup = 2 * kBlock + kN / 8, kEntry = kN % 8 / 2;
    const WordVec row = ByteOfWord<kEntry>(unit, 2 * kGroup, v);
    const WordVec code = hn::ShiftRight<7 * kEntry>(LoadWord(unit, 2 * kGroup + 1, v));
    return WithSigns(PointsAt(kIq2XxsWords.data(), HalfOfRow<kN % 2 == 1>(row)),
                     FourSigns<kN % 2 == 1>(code));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    const FloatVec d = HalfBehind<CodedIq2Xxs>(block.unit, v);
    for (int g = 0; g < 2; ++g) {
      const WordVec tail = LoadWord(block.unit, 2 * (2 * kBlock + g) + 1, v);
      scales[g] = GridScale(d, hn::ShiftRight<28>(tail), 0.25f);
    }
  }
};

struct CodedIq2Xs : GridBlock<18, 4> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    constexpr int kEntry = 8 * kBlock + kN / 2;
    const WordVec q = hn::ShiftRight<kEntry % 2 * 16>(LoadWord(unit, kEntry / 2, v));
    return WithSigns(PointsAt(kIq2XsWords.data(), HalfOfRow<kN % 2 == 1>(MaskWord<511>(q))),
                     FourSigns<kN % 2 == 1>(hn::ShiftRight<9>(q)));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    ScalesOfTwo<kBlock>(block.unit, 16, HalfBehind<CodedIq2Xs>(block.unit, v), v, scales);
  }
};

struct CodedIq2S : GridBlock<20, 4> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    constexpr int kEntry = 8 * kBlock + kN / 2;
    constexpr int kHighBit = kEntry / 4 % 4 * 8 + kEntry % 4 * 2;
    const WordVec low = ByteOfWord<kEntry % 4>(unit, kEntry / 4, v);
    const WordVec high = MaskWord<3>(hn::ShiftRight<kHighBit>(LoadWord(unit, 16 + kEntry / 16, v)));
    const WordVec row = hn::Or(low, hn::ShiftLeft<8>(high));
    const WordVec signs =
        hn::ShiftRight<kEntry % 4 * 8 + kN % 2 * 4>(LoadWord(unit, 8 + kEntry / 4, v));
    return WithSigns(PointsAt(kIq2SWords.data(), HalfOfRow<kN % 2 == 1>(row)), signs);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    ScalesOfTwo<kBlock>(block.unit, 18, HalfBehind<CodedIq2S>(block.unit, v), v, scales);
  }
};

struct CodedIq3Xxs : GridBlock<24, 2> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    constexpr int kGroup = 2 * kBlock + kN / 8;
    const WordVec row = ByteOfWord<kN % 4>(unit, kBlock * 4 + kN / 4, v);
    const WordVec code = hn::ShiftRight<7 * (kN % 8 / 2)>(LoadWord(unit, 16 + kGroup, v));
    return WithSigns(PointsAt(kIq3XxsWords.data(), row), FourSigns<kN % 2 == 1>(code));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    const FloatVec d = HalfBehind<CodedIq3Xxs>(block.unit, v);
    for (int g = 0; g < 2; ++g) {
      const WordVec tail = LoadWord(block.unit, 16 + 2 * kBlock + g, v);
      scales[g] = GridScale(d, hn::ShiftRight<28>(tail), 0.5f);
    }
  }
};

struct CodedIq3S : GridBlock<27, 2> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    constexpr int kGroup = 2 * kBlock + kN / 8;
    constexpr int kHighBit = kGroup % 4 * 8 + kN % 8;
    const WordVec low = ByteOfWord<kN % 4>(unit, kBlock * 4 + kN / 4, v);
    const WordVec high = MaskWord<1>(hn::ShiftRight<kHighBit>(LoadWord(unit, 16 + kGroup / 4, v)));
    const WordVec row = hn::Or(low, hn::ShiftLeft<8>(high));
    const WordVec signs = hn::ShiftRight<kN % 8 * 4>(LoadWord(unit, 18 + kGroup, v));
    return WithSigns(PointsAt(kIq3SWords.data(), row), signs);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    const FloatVec d = HalfBehind<CodedIq3S>(block.unit, v);
    const WordVec s = hn::ShiftRight<8 * kBlock>(LoadWord(block.unit, 26, v));
    scales[0] = GridScale(d, MaskWord<15>(s), 2.0f);
    scales[1] = GridScale(d, MaskWord<15>(hn::ShiftRight<4>(s)), 2.0f);
  }
};

const CodedKernel* KernelOfGrids(const Coding& coding) {
  switch (coding.block) {
    case BlockType::kIq2Xxs: return CodedKernelOf<CodedIq2Xxs>();
    case BlockType::kIq2Xs: return CodedKernelOf<CodedIq2Xs>();
    case BlockType::kIq2S: return CodedKernelOf<CodedIq2S>();
    case BlockType::kIq3Xxs: return CodedKernelOf<CodedIq3Xxs>();
    case BlockType::kIq3S: return CodedKernelOf<CodedIq3S>();
    default: return nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(KernelOfGrids);
const CodedKernel* coded_kernel_of_grids(const Coding& coding, int64_t target) {
  return PENSTOCK_AT_TARGET(KernelOfGrids, dot_product_target(target))(coding);
}
}  // namespace penstock
#endif
