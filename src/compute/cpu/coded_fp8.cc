// Products of coded panels of FP8: codes of E4M3, for 128 columns a scale each row has of its own.
//
// No whole numbers: a weight is made as f32, exactly (its four bits times those of a BF16 scale), and
// multiplied as a plain one, so the bits are those of the f32 matrix that the codes stand for. A
// code's seven bits, put in place, are 2^-120 times its value, subnormal ones included.
#include "compute/cpu/coded_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/coded_fp8.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/coded_formats-inl.h"
#include "compute/cpu/product-inl.h"
#include "quant/fp8.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

// Byte kByte of each lane.
template <int kByte>
HWY_INLINE FloatVec ValueOfE4M3(WordVec word) {
  const IntVec top = hn::BitCast(Ints(), hn::ShiftLeft<24 - 8 * kByte>(word));
  const WordVec bits =
      hn::And(hn::BitCast(Words(), hn::ShiftRight<4>(top)), hn::Set(Words(), 0x87f00000u));
  const FloatVec value = hn::Mul(hn::BitCast(Floats(), bits), hn::Set(Floats(), 0x1p120f));
  // The one code that is not a number.
  const WordVec size = hn::And(bits, hn::Set(Words(), 0x07f00000u));
  const auto is_none = hn::Eq(size, hn::Set(Words(), 0x07f00000u));
  const FloatVec none = hn::BitCast(Floats(), hn::Or(bits, hn::Set(Words(), 0x7fc00000u)));
  return hn::IfThenElse(hn::RebindMask(Floats(), is_none), none, value);
}

template <int kRows>
struct Fp8Block {
  HWY_INLINE Fp8Block() {}
  FloatVec sums[kVectors][kRows];

  template <int kByte>
  HWY_INLINE void AddColumn(WordVec word, FloatVec scale, int v, const float* x) {
    const FloatVec weight = hn::Mul(ValueOfE4M3<kByte>(word), scale);
    PENSTOCK_UNROLL
    for (int r = 0; r < kRows; ++r) {
      sums[v][r] = Fma(weight, hn::Set(Floats(), x[r * kGroupColumns + kByte]), sums[v][r]);
    }
  }

  // totals: [kRows, 16]
  HWY_INLINE void Add(const uint32_t* words, const FloatVec (&scales)[kVectors], const float* x,
                      float* totals) {
    PENSTOCK_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      PENSTOCK_UNROLL
      for (int r = 0; r < kRows; ++r) sums[v][r] = hn::Zero(Floats());
    }
    for (int w = 0; w < kFours; ++w) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const WordVec word = LoadWord(words, w, v);
        AddColumn<0>(word, scales[v], v, x + 4 * w);
        AddColumn<1>(word, scales[v], v, x + 4 * w);
        AddColumn<2>(word, scales[v], v, x + 4 * w);
        AddColumn<3>(word, scales[v], v, x + 4 * w);
      }
    }
    PENSTOCK_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      PENSTOCK_UNROLL
      for (int r = 0; r < kRows; ++r) {
        float* place = totals + r * 16 + v * kLanes;
        hn::Store(hn::Add(hn::Load(Floats(), place), sums[v][r]), Floats(), place);
      }
    }
  }
};

void MultiplyFp8(const CodedPanel* panels, int num_panels, const Coding& coding, int64_t blocks,
                 const std::byte* packed, int padded, float* totals) {
  constexpr int64_t kBlockBytes = kFours * 64;
  WithRows(padded, [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    for (int p = 0; p < num_panels; ++p, totals += kRows * 16) {
      std::fill_n(totals, kRows * 16, 0.0f);
      const auto* x = reinterpret_cast<const float*>(packed);
      const std::byte* place = panels[p].codes;
      FloatVec scales[kVectors];
      // The first block sets them, which g++ does not see.
      for (FloatVec& scale : scales) scale = hn::Zero(Floats());
      for (int64_t block = 0; block < blocks; ++block, place += kBlockBytes) {
        if (block * kGroupColumns % kFp8Square == 0) {
          for (int v = 0; v < kVectors; ++v) {
            scales[v] =
                NumbersAt(coding.scale, panels[p].scales, block * kGroupColumns / kFp8Square, v);
          }
        }
        if constexpr (kRows == 1) {
          PENSTOCK_UNROLL
          for (int64_t line = 0; line < kBlockBytes; line += 64) {
            __builtin_prefetch(place + kPrefetchDistance + line, 0, 2);
          }
        }
        Fp8Block<kRows> sums;
        sums.Add(reinterpret_cast<const uint32_t*>(place), scales, x, totals);
        x += kRows * kGroupColumns;
      }
    }
  });
}

const CodedKernel* KernelOfFp8() {
  static constexpr CodedKernel kKernel = {kTileRows, &PaddedRows, &Pack<F32Format>, nullptr,
                                          &MultiplyFp8};
  return &kKernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(KernelOfFp8);
const CodedKernel* coded_kernel_of_fp8(const Coding&, int64_t target) {
  return PENSTOCK_AT_TARGET(KernelOfFp8, target)();
}
}  // namespace penstock
#endif
