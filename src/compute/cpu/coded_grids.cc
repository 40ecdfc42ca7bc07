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

// Gathering points takes so long that a block is unpacked once also for a single row, by a loop: all
// of it in registers, as shorter codes have it, would be a hundred times the code.

// Numbers of a grid are below 64, with signs; so much more they are kept.
constexpr int kGridOffset = 64;

template <int kWords, int kGroupsOf64>
using GridBlock = SuperBlock<kWords, true, kGroupsOf64, false, kGridOffset>;

// Where the n-th four of a block is: the block's number in the unit, and n.
struct FourPlace {
  int block, n;

  int group_of_32() const { return 2 * block + n / 8; }
  int eight() const { return 8 * block + n / 2; }  // the entry of IQ2, of eight neighbours
  bool is_last() const { return n % 2 == 1; }      // of the two fours of an eight
};

HWY_INLINE WordVec ShiftedWord(const uint32_t* unit, int word, int bits, int v) {
  return hn::ShiftRightSame(LoadWord(unit, word, v), bits);
}

// Byte `index` of those that begin with a word.
HWY_INLINE WordVec ByteAt(const uint32_t* unit, int first_word, int index, int v) {
  return MaskWord<255>(ShiftedWord(unit, first_word + index / 4, index % 4 * 8, v));
}

HWY_INLINE WordVec PointsAt(const uint32_t* grid, WordVec index) {
  return hn::GatherIndex(Words(), grid, hn::BitCast(Ints(), index));
}
// The first or the last four of a row of eight.
HWY_INLINE WordVec HalfOfRow(const uint32_t* grid, WordVec row, bool is_last) {
  return PointsAt(grid + (is_last ? 1 : 0), hn::ShiftLeft<1>(row));
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
HWY_INLINE WordVec FourSigns(WordVec code, bool is_last) {
  if (!is_last) return code;
  const WordVec seven = MaskWord<127>(code);
  WordVec odd = hn::Xor(seven, hn::ShiftRight<4>(seven));
  odd = hn::Xor(odd, hn::ShiftRight<2>(odd));
  odd = MaskWord<1>(hn::Xor(odd, hn::ShiftRight<1>(odd)));
  return hn::Or(hn::ShiftRight<4>(seven), hn::ShiftLeft<3>(odd));
}

// d (s + 1/2) and a power of two.
HWY_INLINE FloatVec GridScale(FloatVec d, WordVec s, float times) {
  const FloatVec with_half = hn::Add(FloatOf(s), hn::Set(Floats(), 0.5f));
  return hn::Mul(hn::Mul(d, with_half), hn::Set(Floats(), times));
}
// Of IQ2_XS and IQ2_S: groups 4b to 4b + 3 are the nibbles of two bytes.
HWY_INLINE FloatVec ScaleOfTwo(const uint32_t* unit, int first_word, int block, int group,
                               FloatVec d, int v) {
  const int bits = block % 2 * 16 + group * 4;
  return GridScale(d, MaskWord<15>(ShiftedWord(unit, first_word + block / 2, bits, v)), 0.25f);
}

struct CodedIq2Xxs : GridBlock<16, 2> {
  static HWY_INLINE WordVec FourAt(const uint32_t* unit, FourPlace at, int v) {
    const int word = 2 * at.group_of_32(), entry = at.eight() % 4;
    const WordVec code = ShiftedWord(unit, word + 1, 7 * entry, v);
    return WithSigns(HalfOfRow(kIq2XxsWords.data(), ByteAt(unit, word, entry, v), at.is_last()),
                     FourSigns(code, at.is_last()));
  }
  static HWY_INLINE FloatVec ScaleAt(const uint32_t* unit, int block, int group, FloatVec d,
                                     int v) {
    return GridScale(d, ShiftedWord(unit, 2 * (2 * block + group) + 1, 28, v), 0.25f);
  }
};

struct CodedIq2Xs : GridBlock<18, 4> {
  static HWY_INLINE WordVec FourAt(const uint32_t* unit, FourPlace at, int v) {
    const WordVec q = ShiftedWord(unit, at.eight() / 2, at.eight() % 2 * 16, v);
    return WithSigns(HalfOfRow(kIq2XsWords.data(), MaskWord<511>(q), at.is_last()),
                     FourSigns(hn::ShiftRight<9>(q), at.is_last()));
  }
  static HWY_INLINE FloatVec ScaleAt(const uint32_t* unit, int block, int group, FloatVec d,
                                     int v) {
    return ScaleOfTwo(unit, 16, block, group, d, v);
  }
};

struct CodedIq2S : GridBlock<20, 4> {
  static HWY_INLINE WordVec FourAt(const uint32_t* unit, FourPlace at, int v) {
    const int entry = at.eight();
    const WordVec high = MaskWord<3>(ShiftedWord(unit, 16 + entry / 16, entry % 16 * 2, v));
    const WordVec row = hn::Or(ByteAt(unit, 0, entry, v), hn::ShiftLeft<8>(high));
    const WordVec signs = ShiftedWord(unit, 8 + entry / 4, entry % 4 * 8 + at.n % 2 * 4, v);
    return WithSigns(HalfOfRow(kIq2SWords.data(), row, at.is_last()), signs);
  }
  static HWY_INLINE FloatVec ScaleAt(const uint32_t* unit, int block, int group, FloatVec d,
                                     int v) {
    return ScaleOfTwo(unit, 18, block, group, d, v);
  }
};

struct CodedIq3Xxs : GridBlock<24, 2> {
  static HWY_INLINE WordVec FourAt(const uint32_t* unit, FourPlace at, int v) {
    const WordVec row = ByteAt(unit, 0, 16 * at.block + at.n, v);
    const WordVec code = ShiftedWord(unit, 16 + at.group_of_32(), 7 * (at.eight() % 4), v);
    return WithSigns(PointsAt(kIq3XxsWords.data(), row), FourSigns(code, at.is_last()));
  }
  static HWY_INLINE FloatVec ScaleAt(const uint32_t* unit, int block, int group, FloatVec d,
                                     int v) {
    return GridScale(d, ShiftedWord(unit, 16 + 2 * block + group, 28, v), 0.5f);
  }
};

struct CodedIq3S : GridBlock<27, 2> {
  static HWY_INLINE WordVec FourAt(const uint32_t* unit, FourPlace at, int v) {
    const int group = at.group_of_32();
    const WordVec high =
        MaskWord<1>(ShiftedWord(unit, 16 + group / 4, group % 4 * 8 + at.n % 8, v));
    const WordVec row = hn::Or(ByteAt(unit, 0, 16 * at.block + at.n, v), hn::ShiftLeft<8>(high));
    const WordVec signs = ShiftedWord(unit, 18 + group, at.n % 8 * 4, v);
    return WithSigns(PointsAt(kIq3SWords.data(), row), signs);
  }
  static HWY_INLINE FloatVec ScaleAt(const uint32_t* unit, int block, int group, FloatVec d,
                                     int v) {
    const WordVec s = MaskWord<15>(ShiftedWord(unit, 26, block * 8 + group * 4, v));
    return GridScale(d, s, 2.0f);
  }
};

template <class Format>
void UnpackGrid(const CodedBlock& block, int in_unit, UnpackedBlock& out) {
  const auto* const bytes = reinterpret_cast<const std::byte*>(block.unit);
  for (int64_t line = 0; line < Format::kUnitBytes / 4; line += 64) {
    __builtin_prefetch(bytes + kPrefetchDistance + in_unit * (Format::kUnitBytes / 4) + line, 0, 2);
  }
  for (int v = 0; v < kVectors; ++v) {
    for (int n = 0; n < kFours; ++n) {
      hn::Store(Format::FourAt(block.unit, {in_unit, n}, v), Words(),
                out.fours + n * 16 + v * kLanes);
    }
    const FloatVec d = FloatOfHalf(LoadHalves(bytes + Format::kUnitBytes - 32, v));
    for (int g = 0; g < Format::kGroups; ++g) {
      hn::Store(Format::ScaleAt(block.unit, in_unit, g, d, v), Floats(),
                out.scales[g] + v * kLanes);
    }
  }
}

template <class Format, class Sum>
void MultiplyGrid(const CodedPanel* panels, int num_panels, const Coding& coding, int64_t blocks,
                  const std::byte* packed, int padded, float* totals) {
  WithRows(padded, [&](auto rows) {
    MultiplyUnpacked<Sum, decltype(rows)::value, Format::kGroups, false>(
        &UnpackGrid<Format>, {Format::kUnitBlocks, Format::kUnitBytes}, panels, num_panels, coding,
        blocks, packed, totals);
  });
}

template <class Format, class Sum>
inline constexpr CodedKernel kGridKernel = {kTileRows, &PaddedRows, nullptr, &PackCoded<Format>,
                                            &MultiplyGrid<Format, Sum>};

template <class Format>
const CodedKernel* GridKernelsOf() {
  static constexpr CodedKernel kKernels[] = {kGridKernel<Format, FourSum>,
                                             kGridKernel<Format, FourDotSum>};
  return kKernels;
}

const CodedKernel* KernelsOfGrids(const Coding& coding) {
  switch (coding.block) {
    case BlockType::kIq2Xxs: return GridKernelsOf<CodedIq2Xxs>();
    case BlockType::kIq2Xs: return GridKernelsOf<CodedIq2Xs>();
    case BlockType::kIq2S: return GridKernelsOf<CodedIq2S>();
    case BlockType::kIq3Xxs: return GridKernelsOf<CodedIq3Xxs>();
    case BlockType::kIq3S: return GridKernelsOf<CodedIq3S>();
    default: return nullptr;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(KernelsOfGrids);
const CodedKernel* coded_kernels_of_grids(const Coding& coding, int64_t target) {
  return PENSTOCK_AT_TARGET(KernelsOfGrids, dot_product_target(target))(coding);
}
}  // namespace penstock
#endif
