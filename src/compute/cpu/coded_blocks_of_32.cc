// Products of coded panels whose units are two blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL,
// MXFP4, and MLX's mxfp4. Words of a unit: quant/row_panels.h.
#include "compute/cpu/coded_kernel.h"
#include "quant/codebook_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/coded_blocks_of_32.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/coded_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

struct CodedQ4_0 : PairOfBlocks<9, false, 8> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return NibblesOf<kN>(unit, v);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    TwoHalves(block.unit, 8, v, scales);
  }
};

struct CodedQ4_1 : PairOfBlocks<10, true, 0> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return NibblesOf<kN>(unit, v);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales,
                                FloatVec* minima) {
    TwoHalves(block.unit, 8, v, scales);
    TwoHalves(block.unit, 9, v, minima);
  }
};

// The fifth bits of four neighbours, under their nibbles.
template <int kN>
HWY_INLINE WordVec FiveBitsOf(const uint32_t* unit, int v) {
  const WordVec high = hn::ShiftRight<kN % 8>(LoadWord(unit, 8 + kN / 8, v));
  return hn::Or(NibblesOf<kN>(unit, v), hn::ShiftLeft<4>(MaskBytes<1>(high)));
}

struct CodedQ5_0 : PairOfBlocks<11, false, 16> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return FiveBitsOf<kN>(unit, v);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    TwoHalves(block.unit, 10, v, scales);
  }
};

struct CodedQ5_1 : PairOfBlocks<12, true, 0> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return FiveBitsOf<kN>(unit, v);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales,
                                FloatVec* minima) {
    TwoHalves(block.unit, 10, v, scales);
    TwoHalves(block.unit, 11, v, minima);
  }
};

struct CodedQ8_0 : PairOfBlocks<17, false, 128> {
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return LoadWord(unit, kN, v);
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    TwoHalves(block.unit, 16, v, scales);
  }
};

struct CodedIq4Nl : CodedQ4_0 {
  static constexpr int kOffset = kTableOffset;
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return LookUp(kIq4Table, NibblesOf<kN>(unit, v));
  }
};

struct CodedMxfp4 : PairOfBlocks<8, false, kTableOffset> {
  static constexpr int64_t kUnitBytes = 8 * 64 + 32;
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return LookUp(kE2m1Table, NibblesOf<kN>(unit, v));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    const WordVec both = LoadHalves(block.unit + 8 * 16, v);
    scales[0] = HalfOfE8M0(MaskWord<0xff>(both));
    scales[1] = HalfOfE8M0(hn::ShiftRight<8>(both));
  }
};

// MLX's: nibbles in the order of columns, exponents in a plane of their own.
struct CodedMlxMxfp4 : PairOfBlocks<8, false, kTableOffset> {
  static constexpr std::array<uint8_t, 16> kOrder = kNibbleOrder;
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    return LookUp(kE2m1Table, NibbleFours<kN>(unit, v));
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales, FloatVec*) {
    for (int g = 0; g < 2; ++g) {
      scales[g] = HalfOfE8M0(LoadBytes(block.panel.scales + (block.block * 2 + g) * 16, v));
    }
  }
};

const CodedKernel* KernelsOf32(const Coding& coding) {
  if (coding.kind == Coding::Kind::kMlxMxfp4) return CodedKernelsOf<CodedMlxMxfp4>();
  switch (coding.block) {
    case BlockType::kQ4_0: return CodedKernelsOf<CodedQ4_0>();
    case BlockType::kQ4_1: return CodedKernelsOf<CodedQ4_1>();
    case BlockType::kQ5_0: return CodedKernelsOf<CodedQ5_0>();
    case BlockType::kQ5_1: return CodedKernelsOf<CodedQ5_1>();
    case BlockType::kQ8_0: return CodedKernelsOf<CodedQ8_0>();
    case BlockType::kIq4Nl: return CodedKernelsOf<CodedIq4Nl>();
    case BlockType::kMxfp4: return CodedKernelsOf<CodedMxfp4>();
    default: return nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(KernelsOf32);
const CodedKernel* coded_kernels_of_32(const Coding& coding, int64_t target) {
  return PENSTOCK_AT_TARGET(KernelsOf32, dot_product_target(target))(coding);
}
}  // namespace penstock
#endif
