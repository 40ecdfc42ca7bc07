// Body of the product of coded panels in 16-bit fixed point (compute/panel.h), compiled once per
// instruction set and coding.
//
// A format brings the codes of four neighbours of each of sixteen rows as four unsigned bytes in a
// lane, and what its scales are. Inputs are there as two words for the same four columns: on
// AVX-512 their high and their low bytes, both signed, for sums of products of bytes; elsewhere two
// pairs of 16-bit numbers. Codes below zero are kept `kOffset` higher, and that times the sum of the
// inputs is subtracted from the integer sum. A single row goes through registers alone; for several
// a block is unpacked once and multiplied by all of them, in code that all formats share.

#if defined(PENSTOCK_COMPUTE_CPU_CODED_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PENSTOCK_COMPUTE_CPU_CODED_PRODUCT_INL_H_
#undef PENSTOCK_COMPUTE_CPU_CODED_PRODUCT_INL_H_
#else
#define PENSTOCK_COMPUTE_CPU_CODED_PRODUCT_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "compute/cpu/coded_kernel.h"
#include "compute/cpu/fixed_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

inline constexpr int kFours = 16;  // of a block of 64 columns

// Where a block of a panel lies.
struct CodedBlock {
  const uint32_t* unit;  // the words of the unit that it is in
  const CodedPanel& panel;
  const Coding& coding;
  int64_t block;  // of the row
};

HWY_INLINE WordVec LoadWord(const uint32_t* unit, int word, int v) {
  return hn::LoadU(Words(), unit + word * 16 + v * kLanes);
}
template <uint32_t kMask>
HWY_INLINE WordVec MaskBytes(WordVec word) {
  return hn::And(word, hn::Set(Words(), kMask * 0x01010101u));
}
HWY_INLINE FloatVec FloatOf(WordVec number) {
  return hn::ConvertTo(Floats(), hn::BitCast(Ints(), number));
}

// A half in the low 16 bits of each lane, as f16_to_f32() has it: moved into place it is 2^-112 of
// its value.
HWY_INLINE FloatVec FloatOfHalf(WordVec half) {
  const WordVec size = hn::ShiftLeft<13>(hn::And(half, hn::Set(Words(), 0x7fffu)));
  const WordVec sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(Words(), 0x8000u)));
  const FloatVec value = hn::Mul(hn::BitCast(Floats(), size), hn::Set(Floats(), 0x1p112f));
  const auto is_special = hn::Gt(hn::BitCast(Ints(), size), hn::Set(Ints(), 0x0f7fffff));
  const WordVec special = hn::Or(size, hn::Set(Words(), 0x7f800000u));
  const FloatVec number =
      hn::IfThenElse(hn::RebindMask(Floats(), is_special), hn::BitCast(Floats(), special), value);
  return hn::BitCast(Floats(), hn::Or(hn::BitCast(Words(), number), sign));
}
HWY_INLINE FloatVec LowHalf(WordVec word) {
  return FloatOfHalf(hn::And(word, hn::Set(Words(), 0xffffu)));
}
HWY_INLINE FloatVec HighHalf(WordVec word) {
  return FloatOfHalf(hn::ShiftRight<16>(word));
}

// Numbers of two bytes or one that lie beside each other.
HWY_INLINE WordVec LoadHalves(const void* place, int v) {
  const hn::Rebind<uint16_t, Floats> halves;
  return hn::PromoteTo(Words(),
                       hn::LoadU(halves, static_cast<const uint16_t*>(place) + v * kLanes));
}
HWY_INLINE WordVec LoadBytes(const void* place, int v) {
  const hn::Rebind<uint8_t, Floats> bytes;
  return hn::PromoteTo(Words(), hn::LoadU(bytes, static_cast<const uint8_t*>(place) + v * kLanes));
}

// half_of_e8m0() of the low byte of each lane.
HWY_INLINE FloatVec HalfOfE8M0(WordVec e) {
  const WordVec usual = hn::ShiftLeft<23>(hn::Sub(e, hn::Set(Words(), 1u)));
  const WordVec is_one = hn::And(e, hn::Set(Words(), 1u));
  const WordVec small =
      hn::Add(hn::Set(Words(), 0x00200000u), hn::Mul(is_one, hn::Set(Words(), 0x00200000u)));
  const auto is_small = hn::Lt(hn::BitCast(Ints(), e), hn::Set(Ints(), 2));
  return hn::BitCast(Floats(), hn::IfThenElse(hn::RebindMask(Words(), is_small), small, usual));
}

// The bytes of a word, each below sixteen, by their entries in a table.
HWY_INLINE WordVec LookUp(const std::array<uint8_t, 16>& table, WordVec word) {
#if HWY_TARGET == HWY_SCALAR
  const uint32_t from = word.raw;
  uint32_t out = 0;
  for (int k = 0; k < 4; ++k) {
    out |= static_cast<uint32_t>(table[from >> (8 * k) & 15u]) << (8 * k);
  }
  return hn::Set(Words(), out);
#else
  const hn::Repartition<uint8_t, Words> bytes;
  const auto entries = hn::LoadDup128(bytes, table.data());
  return hn::BitCast(Words(), hn::TableLookupBytes(entries, hn::BitCast(bytes, word)));
#endif
}

// The sum of codes times inputs, four columns at a time.
#if HWY_TARGET == HWY_AVX3
struct FourSum {
  HWY_INLINE FourSum() {}
  HWY_INLINE void Clear() {
    high = hn::Zero(Ints());
    low = hn::Zero(Ints());
  }
  HWY_INLINE void Add(WordVec codes, const uint32_t* x) {
    // AVX512_VNNI, which Highway's target of this name does not include (dot_product_target()).
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(high.raw) : "v"(codes.raw), "m"(x[0]));
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(low.raw) : "v"(codes.raw), "m"(x[1]));
  }
  HWY_INLINE IntVec Total() const { return hn::Add(hn::ShiftLeft<8>(high), low); }

  IntVec high, low;
};
using FourDotSum = FourSum;
#else
template <class Sum>
struct FourSumOf {
  HWY_INLINE FourSumOf() {}
  HWY_INLINE void Clear() { pairs.Clear(); }
  HWY_INLINE void Add(WordVec codes, const uint32_t* x) {
    pairs.Add(Masked<0xffu>(codes), hn::Set(Words(), x[0]));
    pairs.Add(TopOfHalves<8>(codes), hn::Set(Words(), x[1]));
  }
  HWY_INLINE IntVec Total() const { return pairs.Total(); }

  Sum pairs;
};
using FourSum = FourSumOf<PairSum>;
using FourDotSum = FourSumOf<PairDotSum>;
#endif

// Packed x of one block: [rows, 16, 2] words, then the rows' scales, then for each group what a row's
// inputs sum up to: as a number where there are minima, else as the integer times -kOffset.
constexpr int64_t PackedFoursBytes(int rows) {
  return rows * kFours * 8;
}
template <int kGroups>
constexpr int64_t PackedFoursBlock(int rows) {
  return PackedFoursBytes(rows) + (rows * 4 * (1 + kGroups) + 63) / 64 * 64;
}

// Where the bytes of sixteen columns' words come from, byte k of their fours being column kOrder[k].
template <class Format>
constexpr Gather16 FoursOrder() {
  std::array<uint8_t, 32> from = {};
  for (size_t n = 0; n < 4; ++n) {
    for (size_t k = 0; k < 4; ++k) {
      const auto low = static_cast<uint8_t>(2 * Format::kOrder[4 * n + k]);
      const auto high = static_cast<uint8_t>(low + 1);
#if HWY_TARGET == HWY_AVX3
      from[8 * n + k] = high;
      from[8 * n + 4 + k] = low;
#else
      // Columns 0 and 2 of the four, then 1 and 3.
      from[8 * n + k % 2 * 4 + k / 2 * 2] = low;
      from[8 * n + k % 2 * 4 + k / 2 * 2 + 1] = high;
#endif
    }
  }
  return Gather16(from);
}

// Sixteen numbers at a time.
template <class Format>
HWY_INLINE void PackFours(const int16_t* numbers, uint8_t* out) {
  static constexpr Gather16 kGather = FoursOrder<Format>();
  for (int c = 0; c < kGroupColumns; c += 16, out += 32) {
#if HWY_TARGET == HWY_AVX3
    // q = 256 high + low, both signed: of q + 128 the high byte, and the low one 128 too large.
    const hn::FixedTag<int16_t, 16> d;
    alignas(32) int16_t raised[16];
    hn::Store(hn::Add(hn::LoadU(d, numbers + c), hn::Set(d, int16_t{128})), d, raised);
    kGather.Run(raised, out, out + 16);
    const hn::FixedTag<uint32_t, 8> words;
    alignas(32) static constexpr uint32_t kTurn[8] = {0, 0x80808080u, 0, 0x80808080u,
                                                      0, 0x80808080u, 0, 0x80808080u};
    auto* place = reinterpret_cast<uint32_t*>(out);
    hn::StoreU(hn::Xor(hn::LoadU(words, place), hn::Load(words, kTurn)), words, place);
#else
    kGather.Run(numbers + c, out, out + 16);
#endif
  }
}

template <class Format>
void PackCoded(const FixedRow* rows, int num_rows, int64_t columns, std::byte* packed) {
  constexpr int kGroups = Format::kGroups;
  constexpr int kWidth = static_cast<int>(kGroupColumns) / kGroups;
  const int padded = PaddedRows(num_rows);
  for (int64_t start = 0; start < columns; start += kGroupColumns) {
    auto* out = reinterpret_cast<uint8_t*>(packed);
    auto* scales = reinterpret_cast<float*>(packed + PackedFoursBytes(padded));
    for (int r = 0; r < num_rows; ++r, out += PackedFoursBytes(1)) {
      const int16_t* numbers = rows[r].numbers + start;
      const float scale = rows[r].scales[start / kGroupColumns];
      PackFours<Format>(numbers, out);
      scales[r] = scale;
      for (int g = 0; g < kGroups; ++g) {
        int32_t sum = 0;
        for (int c = 0; c < kWidth; ++c) sum += numbers[g * kWidth + c];
        float* place = scales + (1 + g) * padded + r;
        if constexpr (Format::kHasMinima) {
          *place = static_cast<float>(sum) * scale;
        } else {
          sum *= -Format::kOffset;
          std::memcpy(place, &sum, sizeof(sum));
        }
      }
    }
    std::fill_n(out, (padded - num_rows) * PackedFoursBytes(1), uint8_t{0});
    for (int i = 0; i <= kGroups; ++i) {
      std::fill_n(scales + i * padded + num_rows, padded - num_rows, 0.0f);
    }
    packed += PackedFoursBlock<kGroups>(padded);
  }
}

// total += scale * (sum * the row's scale), and minimum * the row's sum
template <bool kHasMinima, class Sum>
HWY_INLINE FloatVec AddGroup(const Sum& sum, FloatVec scale, FloatVec minimum, float x_scale,
                             const float* x_sum, FloatVec total) {
  IntVec exact = sum.Total();
  if constexpr (!kHasMinima) {
    int32_t shift = 0;
    std::memcpy(&shift, x_sum, sizeof(shift));
    exact = hn::Add(exact, hn::Set(Ints(), shift));
  }
  const FloatVec product = hn::Mul(hn::ConvertTo(Floats(), exact), hn::Set(Floats(), x_scale));
  total = TwiceRounded(scale, product, total);
  if constexpr (kHasMinima) total = TwiceRounded(minimum, hn::Set(Floats(), *x_sum), total);
  return total;
}

// What several rows are multiplied by.
struct UnpackedBlock {
  alignas(64) uint32_t fours[kFours * 16];
  alignas(64) float scales[4][16];
  alignas(64) float minima[4][16];
};
using UnpackFunction = void (*)(const CodedBlock& block, int in_unit, UnpackedBlock& out);

template <class Format, int kBlock, int... kNs>
HWY_INLINE void UnpackFours(const CodedBlock& block, int v, uint32_t* out,
                            std::integer_sequence<int, kNs...>) {
  (hn::Store(Format::template Four<kBlock, kNs>(block.unit, v), Words(),
             out + kNs * 16 + v * kLanes),
   ...);
}
template <class Format, int kBlock>
HWY_INLINE void UnpackBlock(const CodedBlock& block, UnpackedBlock& out) {
  for (int v = 0; v < kVectors; ++v) {
    UnpackFours<Format, kBlock>(block, v, out.fours, std::make_integer_sequence<int, kFours>());
    FloatVec scales[Format::kGroups], minima[Format::kGroups];
    Format::template Scales<kBlock>(block, v, scales, minima);
    for (int g = 0; g < Format::kGroups; ++g) {
      hn::Store(scales[g], Floats(), out.scales[g] + v * kLanes);
      if constexpr (Format::kHasMinima) hn::Store(minima[g], Floats(), out.minima[g] + v * kLanes);
    }
  }
}
template <class Format>
void Unpack(const CodedBlock& block, int in_unit, UnpackedBlock& out) {
  if constexpr (Format::kUnitBlocks == 1) {
    UnpackBlock<Format, 0>(block, out);
  } else {
    switch (in_unit) {
      case 0: return UnpackBlock<Format, 0>(block, out);
      case 1: return UnpackBlock<Format, 1>(block, out);
      case 2: return UnpackBlock<Format, 2>(block, out);
      default: return UnpackBlock<Format, 3>(block, out);
    }
  }
}

// totals: [kRows, 16]
template <class Sum, int kRows, int kGroups, bool kHasMinima>
HWY_INLINE void AddUnpacked(const UnpackedBlock& block, const std::byte* packed, float* totals) {
  constexpr int kEach = kFours / kGroups;
  const auto* x = reinterpret_cast<const uint32_t*>(packed);
  const auto* x_scales = reinterpret_cast<const float*>(packed + PackedFoursBytes(kRows));
  for (int v = 0; v < kVectors; ++v) {
    for (int g = 0; g < kGroups; ++g) {
      Sum sums[kRows];
      PENSTOCK_UNROLL
      for (int r = 0; r < kRows; ++r) sums[r].Clear();
      for (int n = g * kEach; n < (g + 1) * kEach; ++n) {
        const WordVec codes = hn::Load(Words(), block.fours + n * 16 + v * kLanes);
        PENSTOCK_UNROLL
        for (int r = 0; r < kRows; ++r) sums[r].Add(codes, x + (r * kFours + n) * 2);
      }
      const FloatVec scale = hn::Load(Floats(), block.scales[g] + v * kLanes);
      FloatVec minimum = scale;
      if constexpr (kHasMinima) minimum = hn::Load(Floats(), block.minima[g] + v * kLanes);
      PENSTOCK_UNROLL
      for (int r = 0; r < kRows; ++r) {
        float* place = totals + r * 16 + v * kLanes;
        const FloatVec total =
            AddGroup<kHasMinima>(sums[r], scale, minimum, x_scales[r],
                                 x_scales + (1 + g) * kRows + r, hn::Load(Floats(), place));
        hn::Store(total, Floats(), place);
      }
    }
  }
}

// Panels of units of `unit_blocks` blocks and `unit_bytes` bytes.
struct UnitShape {
  int blocks;
  int64_t bytes;
};

template <class Sum, int kRows, int kGroups, bool kHasMinima>
void MultiplyUnpacked(UnpackFunction unpack, UnitShape shape, const CodedPanel* panels,
                      int num_panels, const Coding& coding, int64_t blocks, const std::byte* packed,
                      float* totals) {
  UnpackedBlock unpacked;
  for (int p = 0; p < num_panels; ++p, totals += kRows * 16) {
    std::fill_n(totals, kRows * 16, 0.0f);
    const std::byte* x = packed;
    for (int64_t block = 0; block < blocks; ++block, x += PackedFoursBlock<kGroups>(kRows)) {
      const std::byte* unit = panels[p].codes + block / shape.blocks * shape.bytes;
      const CodedBlock place = {reinterpret_cast<const uint32_t*>(unit), panels[p], coding, block};
      unpack(place, static_cast<int>(block % shape.blocks), unpacked);
      AddUnpacked<Sum, kRows, kGroups, kHasMinima>(unpacked, x, totals);
    }
  }
}

// A single row: one group of a block of a panel.
template <class Format, int kBlock, int kFirst, int... kNs>
HWY_INLINE void AddFours(const uint32_t* unit, int v, const uint32_t* x, FourSum& sum,
                         std::integer_sequence<int, kNs...>) {
  (sum.Add(Format::template Four<kBlock, kFirst + kNs>(unit, v), x + (kFirst + kNs) * 2), ...);
}
template <class Format, int kBlock, int... kGs>
HWY_INLINE void AddRowBlock(const CodedBlock& block, const std::byte* packed,
                            FloatVec (&totals)[kVectors], std::integer_sequence<int, kGs...>) {
  constexpr int kEach = kFours / Format::kGroups;
  const auto* x = reinterpret_cast<const uint32_t*>(packed);
  const auto* x_scales = reinterpret_cast<const float*>(packed + PackedFoursBytes(1));
  PENSTOCK_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    FourSum sums[Format::kGroups];
    PENSTOCK_UNROLL
    for (int g = 0; g < Format::kGroups; ++g) sums[g].Clear();
    (AddFours<Format, kBlock, kGs * kEach>(block.unit, v, x, sums[kGs],
                                           std::make_integer_sequence<int, kEach>()),
     ...);
    FloatVec scales[Format::kGroups], minima[Format::kGroups];
    Format::template Scales<kBlock>(block, v, scales, minima);
    PENSTOCK_UNROLL
    for (int g = 0; g < Format::kGroups; ++g) {
      totals[v] = AddGroup<Format::kHasMinima>(sums[g], scales[g], minima[g], x_scales[0],
                                               x_scales + 1 + g, totals[v]);
    }
  }
}
template <class Format, int... kBlocks>
HWY_INLINE void AddRowUnit(const uint32_t* unit, const CodedPanel& panel, const Coding& coding,
                           int64_t block, const std::byte* packed, FloatVec (&totals)[kVectors],
                           std::integer_sequence<int, kBlocks...>) {
  (AddRowBlock<Format, kBlocks>(CodedBlock{unit, panel, coding, block + kBlocks},
                                packed + kBlocks * PackedFoursBlock<Format::kGroups>(1), totals,
                                std::make_integer_sequence<int, Format::kGroups>()),
   ...);
}

template <class Format>
void MultiplyRow(const CodedPanel* panels, int num_panels, const Coding& coding, int64_t blocks,
                 const std::byte* packed, float* totals) {
  constexpr int kUnit = Format::kUnitBlocks;
  for (int p = 0; p < num_panels; ++p, totals += 16) {
    FloatVec sums[kVectors];
    for (int v = 0; v < kVectors; ++v) sums[v] = hn::Zero(Floats());
    const std::byte* unit = panels[p].codes;
    for (int64_t block = 0; block < blocks; block += kUnit, unit += Format::kUnitBytes) {
      PENSTOCK_UNROLL
      for (int64_t line = 0; line < Format::kUnitBytes; line += 64) {
        __builtin_prefetch(unit + kPrefetchDistance + line, 0, 2);
      }
      AddRowUnit<Format>(reinterpret_cast<const uint32_t*>(unit), panels[p], coding, block,
                         packed + block * PackedFoursBlock<Format::kGroups>(1), sums,
                         std::make_integer_sequence<int, kUnit>());
    }
    for (int v = 0; v < kVectors; ++v) hn::Store(sums[v], Floats(), totals + v * kLanes);
  }
}

template <class Format, class Sum>
void MultiplyCoded(const CodedPanel* panels, int num_panels, const Coding& coding, int64_t blocks,
                   const std::byte* packed, int padded, float* totals) {
  if (padded == 1) {
    MultiplyRow<Format>(panels, num_panels, coding, blocks, packed, totals);
    return;
  }
  WithRows(padded, [&](auto rows) {
    if constexpr (decltype(rows)::value > 1) {
      MultiplyUnpacked<Sum, decltype(rows)::value, Format::kGroups, Format::kHasMinima>(
          &Unpack<Format>, {Format::kUnitBlocks, Format::kUnitBytes}, panels, num_panels, coding,
          blocks, packed, totals);
    }
  });
}

template <class Format, class Sum>
inline constexpr CodedKernel kCodedKernel = {kTileRows, &PaddedRows, nullptr, &PackCoded<Format>,
                                             &MultiplyCoded<Format, Sum>};

// Two: by vectors alone, and with KernelChoice::has_pair_dots.
template <class Format>
const CodedKernel* CodedKernelsOf() {
  static_assert(kTileRows <= kCodedTileRowsMax);
  static constexpr CodedKernel kKernels[] = {kCodedKernel<Format, FourSum>,
                                             kCodedKernel<Format, FourDotSum>};
  return kKernels;
}

// In natural order.
inline constexpr std::array<uint8_t, 16> kNaturalOrder = {0, 1, 2,  3,  4,  5,  6,  7,
                                                          8, 9, 10, 11, 12, 13, 14, 15};

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
