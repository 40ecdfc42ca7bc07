// Products of coded panels of affine groups: MLX's 2, 3, 4, 5, 6 and 8 bits. Codes, scales and biases
// are planes of their own (quant/row_panels.h).
#include "compute/cpu/coded_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/coded_affine.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/coded_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

// Fours of a word of 2 bits: columns k, k + 4, ... of sixteen.
inline constexpr std::array<uint8_t, 16> kPairOrder = {0, 4, 8,  12, 1, 5, 9,  13,
                                                       2, 6, 10, 14, 3, 7, 11, 15};

// kGroupsOf64: 2 groups of 32; or one, of a group that a block is the whole or a part of.
template <int kBits, int kGroupsOf64>
struct CodedAffine {
  static constexpr int kUnitBlocks = 1;
  static constexpr int64_t kUnitBytes = 2 * kBits * 64;
  static constexpr int kGroups = kGroupsOf64;
  static constexpr bool kHasMinima = true;
  static constexpr int kOffset = 0;
  static constexpr int kLow = kBits == 3 ? 2 : kBits == 5 || kBits == 6 ? 4 : kBits;
  static constexpr int kHigh = kBits - kLow;  // bits above them, in words behind theirs
  static constexpr std::array<uint8_t, 16> kOrder = kLow == 2   ? kPairOrder
                                                    : kLow == 4 ? kNibbleOrder
                                                                : kNaturalOrder;

  template <int kN>
  static HWY_INLINE WordVec Low(const uint32_t* unit, int v) {
    if constexpr (kLow == 8) return LoadWord(unit, kN, v);
    if constexpr (kLow == 4) return NibbleFours<kN>(unit, v);
    return MaskBytes<3>(hn::ShiftRight<2 * (kN % 4)>(LoadWord(unit, kN / 4, v)));
  }
  template <int kBlock, int kN>
  static HWY_INLINE WordVec Four(const uint32_t* unit, int v) {
    if constexpr (kHigh == 0) return Low<kN>(unit, v);
    else {
      constexpr int kInWord = 8 / kHigh;
      constexpr uint32_t kMask = (1u << kHigh) - 1;
      const WordVec word = LoadWord(unit, 2 * kLow + kN / kInWord, v);
      const WordVec high = MaskBytes<kMask>(hn::ShiftRight<kN % kInWord * kHigh>(word));
      return hn::Or(Low<kN>(unit, v), hn::ShiftLeft<kLow>(high));
    }
  }
  template <int kBlock>
  static HWY_INLINE void Scales(const CodedBlock& block, int v, FloatVec* scales,
                                FloatVec* minima) {
    const AffineCoding& affine = block.coding.affine;
    for (int g = 0; g < kGroups; ++g) {
      const int64_t index =
          kGroups == 2 ? block.block * 2 + g : block.block * kGroupColumns / affine.group;
      scales[g] = NumbersAt(affine.scales, block.panel.scales, index, v);
      minima[g] = NumbersAt(affine.scales, block.panel.biases, index, v);
    }
  }
};

template <int kBits>
const CodedKernel* KernelsOfBits(int64_t group) {
  if (group == kGroupColumns / 2) return CodedKernelsOf<CodedAffine<kBits, 2>>();
  return CodedKernelsOf<CodedAffine<kBits, 1>>();
}

const CodedKernel* KernelsOfAffine(const Coding& coding) {
  const int64_t group = coding.affine.group;
  switch (coding.affine.bits) {
    case 2: return KernelsOfBits<2>(group);
    case 3: return KernelsOfBits<3>(group);
    case 4: return KernelsOfBits<4>(group);
    case 5: return KernelsOfBits<5>(group);
    case 6: return KernelsOfBits<6>(group);
    case 8: return KernelsOfBits<8>(group);
    default: return nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(KernelsOfAffine);
const CodedKernel* coded_kernels_of_affine(const Coding& coding, int64_t target) {
  return PENSTOCK_AT_TARGET(KernelsOfAffine, dot_product_target(target))(coding);
}
}  // namespace penstock
#endif
