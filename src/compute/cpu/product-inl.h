// Body of the panel product (product.h), compiled once per instruction set and number format.
//
// A lane is a row of the matrix. The accumulators of a tile of panels and rows of x stay in
// registers over the 64 columns of a block; the totals of the blocks wait in `totals`, in the
// nearest cache. A chain of additions belongs to one row of x and one row of the matrix and never
// depends on the shape of the tile, so all shapes give the same bits.

#if defined(PENSTOCK_COMPUTE_CPU_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PENSTOCK_COMPUTE_CPU_PRODUCT_INL_H_
#undef PENSTOCK_COMPUTE_CPU_PRODUCT_INL_H_
#else
#define PENSTOCK_COMPUTE_CPU_PRODUCT_INL_H_
#endif

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "compute/cpu/product.h"
#include "compute/cpu/vector-inl.h"
#include "compute/panel.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {
// The codes under `mask`, as numbers. The sign bit must not be set.
template <uint32_t kMask>
HWY_INLINE FloatVec MaskedCode(WordVec word) {
  return hn::ConvertTo(Floats(), hn::BitCast(Ints(), hn::And(word, hn::Set(Words(), kMask))));
}
template <int kShift>
HWY_INLINE FloatVec TopCode(WordVec word) {
  return hn::ConvertTo(Floats(), hn::BitCast(Ints(), hn::ShiftRight<kShift>(word)));
}

// (Structs of vectors have constructors of their own, as generated ones are not compiled for the
// instruction set.)
//
// A format says how many columns one step decodes, what it loads for them and the weight of each.
// kScaleBits: weights of the kernel times packed x are code * x * 2^kScaleBits.
struct F32Format {
  static constexpr DType kDType = DType::kF32;
  static constexpr int kStepColumns = 4;
  static constexpr int kScaleBits = 0;
  struct Step {
    HWY_INLINE Step() {}
    WordVec words[4];
  };
  static HWY_INLINE void Load(const uint32_t* words, int step, Step& out) {
    const uint32_t* place = words + step * 4 * 16;
    for (int i = 0; i < 4; ++i) out.words[i] = hn::Load(Words(), place + i * 16);
  }
  template <int kColumn>
  static HWY_INLINE FloatVec Weight(const Step& step) {
    return hn::BitCast(Floats(), step.words[kColumn]);
  }
  static constexpr int FactorBits(int) { return 0; }
};

struct BF16Format {
  static constexpr DType kDType = DType::kBF16;
  static constexpr int kStepColumns = 4;
  static constexpr int kScaleBits = 0;
  struct Step {
    HWY_INLINE Step() {}
    WordVec words[2];
  };
  static HWY_INLINE void Load(const uint32_t* words, int step, Step& out) {
    const uint32_t* place = words + step * 2 * 16;
    for (int i = 0; i < 2; ++i) out.words[i] = hn::Load(Words(), place + i * 16);
  }
  template <int kColumn>
  static HWY_INLINE FloatVec Weight(const Step& step) {
    const WordVec word = step.words[kColumn / 2];
    if constexpr (kColumn % 2 == 0) return hn::BitCast(Floats(), hn::ShiftLeft<16>(word));
    return hn::BitCast(Floats(), hn::And(word, hn::Set(Words(), 0xffff0000u)));
  }
  static constexpr int FactorBits(int) { return 0; }
};

// q8, q4 and q2: 32 / kBits columns in a word.
template <DType kType>
struct WordFormat {
  static constexpr DType kDType = kType;
  static constexpr int kBits = bits_of(kType);
  static constexpr int kStepColumns = 32 / kBits;
  static constexpr int kScaleBits = 32 - 2 * kBits;
  struct Step {
    HWY_INLINE Step() {}
    WordVec word;
  };
  static HWY_INLINE void Load(const uint32_t* words, int step, Step& out) {
    out.word = hn::Load(Words(), words + step * 16);
  }
  // The top code would reach the sign bit, so that one is shifted down.
  template <int kColumn>
  static HWY_INLINE FloatVec Weight(const Step& step) {
    if constexpr (kColumn == kStepColumns - 1) return TopCode<32 - kBits>(step.word);
    return MaskedCode<((1u << kBits) - 1) << (kBits * (kColumn % (kStepColumns - 1)))>(step.word);
  }
  static constexpr int FactorBits(int column) {
    return column == kStepColumns - 1 ? kScaleBits : kScaleBits - kBits * column;
  }
};

// q3: the even and the odd columns of a word become two words of eight codes, four bits apart.
struct Q3Format {
  static constexpr DType kDType = DType::kQ3;
  static constexpr int kStepColumns = 16;
  static constexpr int kScaleBits = 28;
  struct Step {
    HWY_INLINE Step() {}
    WordVec even, odd;
  };
  static HWY_INLINE void Load(const uint32_t* words, int step, Step& out) {
    const WordVec low = hn::Load(Words(), words + step * 16);
    const WordVec high = hn::Load(Words(), words + (4 + step / 2) * 16);
    const WordVec low_mask = hn::Set(Words(), 0x33333333u);
    const WordVec high_mask = hn::Set(Words(), 0x44444444u);
    const WordVec even = step % 2 == 0 ? hn::ShiftLeft<2>(high) : high;
    const WordVec odd = step % 2 == 0 ? hn::ShiftLeft<1>(high) : hn::ShiftRight<1>(high);
    out.even = hn::Or(hn::And(low, low_mask), hn::And(even, high_mask));
    out.odd = hn::Or(hn::And(hn::ShiftRight<2>(low), low_mask), hn::And(odd, high_mask));
  }
  template <int kColumn>
  static HWY_INLINE FloatVec Weight(const Step& step) {
    return MaskedCode<7u << (kColumn / 2 * 4)>(kColumn % 2 == 0 ? step.even : step.odd);
  }
  static constexpr int FactorBits(int column) { return kScaleBits - column / 2 * 4; }
};

// The register tile: kPanels panels by kRows rows of x.
template <class Format, int kPanels, int kRows>
struct Tile {
  static constexpr int64_t kBlockBytes = block_bytes(Format::kDType);
  static constexpr int kSteps = static_cast<int>(kGroupColumns) / Format::kStepColumns;

  HWY_INLINE Tile() {}

  FloatVec sums[kPanels][kVectors][kRows];

  template <int kColumn>
  HWY_INLINE void AddColumn(const typename Format::Step (&steps)[kPanels][kVectors],
                            const float* x) {
    FloatVec weights[kPanels][kVectors];
    PENSTOCK_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        weights[p][v] = Format::template Weight<kColumn>(steps[p][v]);
      }
    }
    PENSTOCK_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const FloatVec value = hn::Set(Floats(), x[r * kGroupColumns + kColumn]);
      PENSTOCK_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        PENSTOCK_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          sums[p][v][r] = Fma(weights[p][v], value, sums[p][v][r]);
        }
      }
    }
  }

  template <int... kColumns>
  HWY_INLINE void AddStep(const uint32_t* const (&words)[kPanels], int step, const float* x,
                          std::integer_sequence<int, kColumns...>) {
    typename Format::Step steps[kPanels][kVectors];
    PENSTOCK_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        Format::Load(words[p] + v * kLanes, step, steps[p][v]);
      }
    }
    (AddColumn<kColumns>(steps, x), ...);
  }

  // totals: [kPanels, kRows, 16]
  HWY_INLINE void AddBlock(const uint32_t* const (&words)[kPanels], const float* x,
                           const float* block_sums, float* totals) {
    PENSTOCK_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        PENSTOCK_UNROLL
        for (int r = 0; r < kRows; ++r) sums[p][v][r] = hn::Zero(Floats());
      }
    }
    constexpr auto kColumns = std::make_integer_sequence<int, Format::kStepColumns>();
    for (int step = 0; step < kSteps; ++step) {
      AddStep(words, step, x + step * Format::kStepColumns, kColumns);
    }
    PENSTOCK_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        AddToTotals(words[p], v, sums[p][v], block_sums, totals + p * kRows * 16 + v * kLanes);
      }
    }
  }

  // The block's sums of one vector of rows of the matrix.
  static HWY_INLINE void AddToTotals(const uint32_t* words, int v, const FloatVec (&sum)[kRows],
                                     const float* block_sums, float* totals) {
    if constexpr (is_quantised(Format::kDType)) {
      const auto* scales = reinterpret_cast<const uint16_t*>(words + kBlockBytes / 4 - 16);
      const FloatVec factor = hn::Set(Floats(), 1.0f / static_cast<float>(1 << Format::kScaleBits));
      const FloatVec scale = hn::Mul(LoadBF16(scales + v * kLanes), factor);
      const FloatVec bias = LoadBF16(scales + 16 + v * kLanes);
      PENSTOCK_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const FloatVec total = Fma(scale, sum[r], hn::Load(Floats(), totals + r * 16));
        hn::Store(Fma(bias, hn::Set(Floats(), block_sums[r]), total), Floats(), totals + r * 16);
      }
    } else {
      PENSTOCK_UNROLL
      for (int r = 0; r < kRows; ++r) {
        hn::Store(hn::Add(hn::Load(Floats(), totals + r * 16), sum[r]), Floats(), totals + r * 16);
      }
    }
  }

  static HWY_INLINE FloatVec LoadBF16(const uint16_t* place) {
    const hn::Rebind<uint16_t, Floats> halves;
    const WordVec wide = hn::PromoteTo(Words(), hn::Load(halves, place));
    return hn::BitCast(Floats(), hn::ShiftLeft<16>(wide));
  }
};

template <class Format, int kPanels, int kRows>
HWY_INLINE void MultiplyTile(const std::byte* const* panels, int64_t blocks, const float* packed,
                             const float* sums, float* totals) {
  const uint32_t* words[kPanels];
  for (int p = 0; p < kPanels; ++p) words[p] = reinterpret_cast<const uint32_t*>(panels[p]);
  std::fill_n(totals, kPanels * kRows * 16, 0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    Tile<Format, kPanels, kRows> tile;
    tile.AddBlock(words, packed, sums, totals);
    for (int p = 0; p < kPanels; ++p) words[p] += block_bytes(Format::kDType) / 4;
    packed += kRows * kGroupColumns;
    sums += kRows;
  }
}

// Register tiles: kPanels * kVectors * kRows accumulators, the weights and one value of x have to
// fit into 32 (AVX-512, NEON) or 16 registers, and a single row needs enough independent chains to
// hide the latency of an fma.
#if HWY_TARGET == HWY_AVX3
inline constexpr int kTileRows = 12;
constexpr int PanelsOfTile(int rows) {
  return rows <= 4 ? 4 : 2;
}
#elif HWY_TARGET == HWY_AVX2
inline constexpr int kTileRows = 6;
constexpr int PanelsOfTile(int rows) {
  return rows == 1 ? 3 : rows == 2 ? 2 : 1;
}
#elif HWY_TARGET == HWY_NEON
inline constexpr int kTileRows = 6;
constexpr int PanelsOfTile(int rows) {
  return rows == 1 ? 3 : rows == 2 ? 2 : 1;
}
#else
inline constexpr int kTileRows = 3;
constexpr int PanelsOfTile(int) {
  return 1;
}
#endif

template <class Format, int kRows>
void MultiplyPanels(const std::byte* const* panels, int num_panels, int64_t blocks,
                    const float* packed, const float* sums, float* totals) {
  constexpr int kWide = PanelsOfTile(kRows);
  int p = 0;
  for (; p + kWide <= num_panels; p += kWide) {
    MultiplyTile<Format, kWide, kRows>(panels + p, blocks, packed, sums, totals + p * kRows * 16);
  }
  for (; p < num_panels; ++p) {
    MultiplyTile<Format, 1, kRows>(panels + p, blocks, packed, sums, totals + p * kRows * 16);
  }
}

inline int PaddedRows(int rows) {
  if (rows <= 4) return rows;
  return rows <= 6 ? 6 : rows <= 8 ? 8 : 12;
}

// Calls body(rows) with the number of padded rows as a constant.
template <class Body>
HWY_INLINE void WithRows(int padded, const Body& body) {
  const auto run = [&](auto rows) {
    if constexpr (decltype(rows)::value <= kTileRows) body(rows);
  };
  switch (padded) {
    case 1: return run(std::integral_constant<int, 1>());
    case 2: return run(std::integral_constant<int, 2>());
    case 3: return run(std::integral_constant<int, 3>());
    case 4: return run(std::integral_constant<int, 4>());
    case 6: return run(std::integral_constant<int, 6>());
    case 8: return run(std::integral_constant<int, 8>());
    case 12: return run(std::integral_constant<int, 12>());
    default: PENSTOCK_CHECK(false);
  }
}

template <class Format>
void Multiply(const std::byte* const* panels, int num_panels, int64_t blocks,
              const std::byte* packed, const float* sums, int padded, float* totals) {
  const auto* x = reinterpret_cast<const float*>(packed);
  WithRows(padded, [&](auto rows) {
    MultiplyPanels<Format, decltype(rows)::value>(panels, num_panels, blocks, x, sums, totals);
  });
}

// The powers of two that a block of x is multiplied by.
template <class Format>
struct Factors {
  alignas(64) float values[kGroupColumns];
  constexpr Factors() : values() {
    for (int c = 0; c < kGroupColumns; ++c) {
      values[c] = static_cast<float>(1u << Format::FactorBits(c % Format::kStepColumns));
    }
  }
};

template <class Format>
void Pack(const float* const* rows, int num_rows, int64_t columns, std::byte* place) {
  static constexpr Factors<Format> kFactors;
  auto* packed = reinterpret_cast<float*>(place);
  const int padded = PaddedRows(num_rows);
  for (int64_t start = 0; start < columns; start += kGroupColumns) {
    const int64_t count = std::min(kGroupColumns, columns - start);
    for (int r = 0; r < num_rows; ++r, packed += kGroupColumns) {
      const float* x = rows[r] + start;
      if (count == kGroupColumns) {
        for (int64_t c = 0; c < kGroupColumns; c += kLanes) {
          const FloatVec factors = hn::Load(Floats(), kFactors.values + c);
          hn::Store(hn::Mul(hn::LoadU(Floats(), x + c), factors), Floats(), packed + c);
        }
      } else {
        for (int64_t c = 0; c < count; ++c) packed[c] = x[c] * kFactors.values[c];
        std::fill(packed + count, packed + kGroupColumns, 0.0f);
      }
    }
    std::fill_n(packed, (padded - num_rows) * kGroupColumns, 0.0f);
    packed += (padded - num_rows) * kGroupColumns;
  }
}

template <class Format>
const ProductKernel* KernelOf() {
  static constexpr ProductKernel kKernel = {
      kTileRows, PanelsOfTile(1),  is_quantised(Format::kDType), &PaddedRows, &Pack<Format>,
      nullptr,   &Multiply<Format>};
  return &kKernel;
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
