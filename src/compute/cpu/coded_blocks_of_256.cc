// Products of coded panels whose units are blocks of 256: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS,
// TQ2_0. Words of a unit: quant/row_panels.h; where the bits are in them: quant/k_blocks.h.
#include "compute/cpu/coded_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/coded_blocks_of_256.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/coded_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

// The n-th four of block b of codes of two bits: pair k = 2 (b % 2) + n / 8 of a byte of half b / 2.
template <int kBlock, int kN>
HWY_INLINE WordVec TwoBitsOf(const uint32_t* unit, int first, int v) {
  constexpr int kPair = kBlock % 2 * 2 + kN / 8;
  return MaskBytes<3>(
      hn::ShiftRight<2 * kPair>(LoadWord(unit, first + kBlock / 2 * 8 + kN % 8, v)));
}
// Of codes of four bits in runs of 32 bytes: all low nibbles, then all high ones.
template <int kBlock, int kN>
HWY_INLINE WordVec LongNibblesOf(const uint32_t* unit, int v) {
  return NibblesOfWord<kN >= 8>(unit, kBlock * 8 + kN % 8, v);
}
// Byte kByte of a word as a number.
template <int kByte>
HWY_INLINE FloatVec ByteOf(WordVec word) {
  return FloatOf(MaskWord<0xff>(hn::ShiftRight<8 * kByte>(word)));
}

struct CodedQ2K : SuperBlock<21, false, 4, true, 0> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return TwoBitsOf<kBlock, kN>(unit, 0, v);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales,
                                FloatVec* minima) {
    const WordVec both = LoadWord(block.unit, 20, v);
    const FloatVec d = LowHalf(both), m = hn::Neg(HighHalf(both));
    const WordVec packed = LoadWord(block.unit, 16 + kBlock, v);
    const WordVec s = MaskBytes<15>(packed), n = MaskBytes<15>(hn::ShiftRight<4>(packed));
    scales[0] = hn::Mul(d, ByteOf<0>(s));
    scales[1] = hn::Mul(d, ByteOf<1>(s));
    scales[2] = hn::Mul(d, ByteOf<2>(s));
    scales[3] = hn::Mul(d, ByteOf<3>(s));
    minima[0] = hn::Mul(m, ByteOf<0>(n));
    minima[1] = hn::Mul(m, ByteOf<1>(n));
    minima[2] = hn::Mul(m, ByteOf<2>(n));
    minima[3] = hn::Mul(m, ByteOf<3>(n));
  }
};

struct CodedQ3K : SuperBlock<27, true, 4, false, 4> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    constexpr int kShift = kBlock * 2 + kN / 8;
    const WordVec high = hn::ShiftRight<kShift>(LoadWord(unit, 16 + kN % 8, v));
    return hn::Or(TwoBitsOf<kBlock, kN>(unit, 0, v), hn::ShiftLeft<2>(MaskBytes<1>(high)));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    const FloatVec d = FloatOfHalf(LoadHalves(block.unit + 27 * 16, v));
    const WordVec low = LoadWord(block.unit, 24 + kBlock % 2, v);
    const WordVec high = hn::ShiftRight<2 * kBlock>(LoadWord(block.unit, 26, v));
    const WordVec s = hn::Or(MaskBytes<15>(kBlock >= 2 ? hn::ShiftRight<4>(low) : low),
                             hn::ShiftLeft<4>(MaskBytes<3>(high)));
    const FloatVec offset = hn::Set(Floats(), 32.0f);
    scales[0] = hn::Mul(d, hn::Sub(ByteOf<0>(s), offset));
    scales[1] = hn::Mul(d, hn::Sub(ByteOf<1>(s), offset));
    scales[2] = hn::Mul(d, hn::Sub(ByteOf<2>(s), offset));
    scales[3] = hn::Mul(d, hn::Sub(ByteOf<3>(s), offset));
  }
};

// Scales and minima of groups 2b and 2b + 1 of Q4_K and Q5_K; words: [3] of scales, then d and m.
template <int kBlock>
HWY_INLINE void ScaleMinima(const uint32_t* unit, int words, int v, FloatVec* scales,
                            FloatVec* minima) {
  const WordVec both = LoadWord(unit, words + 3, v);
  const FloatVec d = LowHalf(both), m = hn::Neg(HighHalf(both));
  WordVec s = LoadWord(unit, words, v), n = LoadWord(unit, words + 1, v);
  if constexpr (kBlock < 2) {
    s = MaskBytes<63>(s);
    n = MaskBytes<63>(n);
  } else {
    const WordVec low = LoadWord(unit, words + 2, v);
    s = hn::Or(MaskBytes<15>(low), MaskBytes<48>(hn::ShiftRight<2>(s)));
    n = hn::Or(MaskBytes<15>(hn::ShiftRight<4>(low)), MaskBytes<48>(hn::ShiftRight<2>(n)));
  }
  constexpr int kByte = kBlock % 2 * 2;
  scales[0] = hn::Mul(d, ByteOf<kByte>(s));
  scales[1] = hn::Mul(d, ByteOf<kByte + 1>(s));
  minima[0] = hn::Mul(m, ByteOf<kByte>(n));
  minima[1] = hn::Mul(m, ByteOf<kByte + 1>(n));
}

struct CodedQ4K : SuperBlock<36, false, 2, true, 0> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return LongNibblesOf<kBlock, kN>(unit, v);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales,
                                FloatVec* minima) {
    ScaleMinima<kBlock>(block.unit, 32, v, scales, minima);
  }
};

struct CodedQ5K : SuperBlock<44, false, 2, true, 0> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    constexpr int kShift = kBlock * 2 + kN / 8;
    const WordVec high = hn::ShiftRight<kShift>(LoadWord(unit, 32 + kN % 8, v));
    return hn::Or(LongNibblesOf<kBlock, kN>(unit, v), hn::ShiftLeft<4>(MaskBytes<1>(high)));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales,
                                FloatVec* minima) {
    ScaleMinima<kBlock>(block.unit, 40, v, scales, minima);
  }
};

struct CodedQ6K : SuperBlock<52, true, 4, false, 32> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    const WordVec low = NibblesOfWord<kBlock % 2 == 1>(unit, kBlock / 2 * 16 + kN, v);
    constexpr int kPair = kBlock % 2 * 2 + kN / 8;
    const WordVec high = hn::ShiftRight<2 * kPair>(LoadWord(unit, 32 + kBlock / 2 * 8 + kN % 8, v));
    return hn::Or(low, hn::ShiftLeft<4>(MaskBytes<3>(high)));
  }
  template <int kByte>
  static HWY_INLINE FloatVec SignedByte(WordVec word) {
    const IntVec top = hn::BitCast(Ints(), hn::ShiftLeft<24 - 8 * kByte>(word));
    return hn::ConvertTo(Floats(), hn::ShiftRight<24>(top));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    const FloatVec d = FloatOfHalf(LoadHalves(block.unit + 52 * 16, v));
    const WordVec s = LoadWord(block.unit, 48 + kBlock, v);
    scales[0] = hn::Mul(d, SignedByte<0>(s));
    scales[1] = hn::Mul(d, SignedByte<1>(s));
    scales[2] = hn::Mul(d, SignedByte<2>(s));
    scales[3] = hn::Mul(d, SignedByte<3>(s));
  }
};

struct CodedIq4Xs : SuperBlock<34, false, 2, false, kTableOffset> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return LookUp(kIq4Table, NibblesOf<kN>(unit + kBlock * 8 * 16, v));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    const WordVec both = LoadWord(block.unit, 33, v);
    const WordVec low = hn::ShiftRight<8 * kBlock>(LoadWord(block.unit, 32, v));
    const WordVec high = hn::ShiftRight<16 + 4 * kBlock>(both);
    const FloatVec d = LowHalf(both), offset = hn::Set(Floats(), 32.0f);
    const WordVec first = hn::Or(MaskWord<15>(low), hn::ShiftLeft<4>(MaskWord<3>(high)));
    const WordVec second =
        hn::Or(MaskWord<15>(hn::ShiftRight<4>(low)), MaskWord<48>(hn::ShiftLeft<2>(high)));
    scales[0] = hn::Mul(d, hn::Sub(FloatOf(first), offset));
    scales[1] = hn::Mul(d, hn::Sub(FloatOf(second), offset));
  }
};

struct CodedTq2_0 : SuperBlock<16, true, 1, false, 1> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return TwoBitsOf<kBlock, kN>(unit, 0, v);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    scales[0] = FloatOfHalf(LoadHalves(block.unit + 16 * 16, v));
  }
};

const CodedKernel* KernelsOf256(const Coding& coding) {
  switch (coding.block) {
    case BlockType::kQ2K: return CodedKernelsOf<CodedQ2K>();
    case BlockType::kQ3K: return CodedKernelsOf<CodedQ3K>();
    case BlockType::kQ4K: return CodedKernelsOf<CodedQ4K>();
    case BlockType::kQ5K: return CodedKernelsOf<CodedQ5K>();
    case BlockType::kQ6K: return CodedKernelsOf<CodedQ6K>();
    case BlockType::kIq4Xs: return CodedKernelsOf<CodedIq4Xs>();
    case BlockType::kTq2_0: return CodedKernelsOf<CodedTq2_0>();
    default: return nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(KernelsOf256);
const CodedKernel* coded_kernels_of_256(const Coding& coding, int64_t target) {
  return PENSTOCK_AT_TARGET(KernelsOf256, dot_product_target(target))(coding);
}
}  // namespace penstock
#endif
