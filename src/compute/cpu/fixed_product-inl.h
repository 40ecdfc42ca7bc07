// Body of the panel product in 16-bit fixed point (Arithmetic::kFixed16), compiled once per
// instruction set and number format.
//
// Two columns share a 32-bit lane: the codes of a pair are masked out of a word as two 16-bit
// numbers, so that one multiplication of 16-bit pairs does the work of two conversions and two
// fused multiply-adds. Integer sums are exact, so tiles of any shape give the same bits.

#if defined(PENSTOCK_COMPUTE_CPU_FIXED_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PENSTOCK_COMPUTE_CPU_FIXED_PRODUCT_INL_H_
#undef PENSTOCK_COMPUTE_CPU_FIXED_PRODUCT_INL_H_
#else
#define PENSTOCK_COMPUTE_CPU_FIXED_PRODUCT_INL_H_
#endif

#include <algorithm>
#include <array>
#include <utility>

#include "compute/cpu/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

using IntVec = hn::Vec<Ints>;

// The codes under `mask` and under its copy 16 bits higher, in their places.
template <uint32_t kMask>
HWY_INLINE WordVec Masked(WordVec word) {
  return hn::And(word, hn::Set(Words(), kMask * 0x10001u));
}

// The top kBits of both halves of each lane, shifted down.
template <int kBits>
HWY_INLINE WordVec TopOfHalves(WordVec word) {
#if HWY_TARGET == HWY_SCALAR
  return Masked<(1u << kBits) - 1>(hn::ShiftRight<16 - kBits>(word));
#else
  const hn::Repartition<uint16_t, Words> halves;
  return hn::BitCast(Words(), hn::ShiftRight<16 - kBits>(hn::BitCast(halves, word)));
#endif
}

// Bytes of sixteen 16-bit numbers in another order, twice sixteen of them: from[i] is the byte, of
// 32, that comes i-th.
struct Gather16 {
  alignas(16) uint8_t of_first[2][16], of_second[2][16];  // 0x80: not from there
  std::array<uint8_t, 32> from;

  explicit constexpr Gather16(const std::array<uint8_t, 32>& bytes)
      : of_first(), of_second(), from(bytes) {
    for (size_t i = 0; i < 32; ++i) {
      const bool is_first = bytes[i] < 16;
      of_first[i / 16][i % 16] = is_first ? bytes[i] : uint8_t{0x80};
      of_second[i / 16][i % 16] = is_first ? uint8_t{0x80} : static_cast<uint8_t>(bytes[i] - 16);
    }
  }

  HWY_INLINE void Run(const int16_t* numbers, uint8_t* first_out, uint8_t* second_out) const {
#if HWY_TARGET == HWY_SCALAR
    const auto* bytes = reinterpret_cast<const uint8_t*>(numbers);
    for (size_t i = 0; i < 16; ++i) {
      first_out[i] = bytes[from[i]];
      second_out[i] = bytes[from[16 + i]];
    }
#else
    const hn::FixedTag<uint8_t, 16> d;
    const auto* bytes = reinterpret_cast<const uint8_t*>(numbers);
    const auto first = hn::LoadU(d, bytes), second = hn::LoadU(d, bytes + 16);
    const auto gathered = [&](int i) {
      return hn::Or(hn::TableLookupBytesOr0(first, hn::Load(d, of_first[i])),
                    hn::TableLookupBytesOr0(second, hn::Load(d, of_second[i])));
    };
    hn::StoreU(gathered(0), d, first_out);
    hn::StoreU(gathered(1), d, second_out);
#endif
  }
};

// Sums of products of pairs: per lane low * low + high * high of the 16-bit halves. Some targets
// keep them in two vectors until the end.
struct PairSum {
  HWY_INLINE PairSum() {}
  HWY_INLINE void Clear() {
    first = hn::Zero(Ints());
    second = hn::Zero(Ints());
  }
  HWY_INLINE void Add(WordVec codes, WordVec x) {
#if HWY_TARGET == HWY_AVX3
    // AVX512_VNNI, which Highway's target of this name does not include (dot_product_target()).
    asm("vpdpwssd %2, %1, %0" : "+v"(first.raw) : "v"(codes.raw), "v"(x.raw));
#elif HWY_TARGET == HWY_SCALAR
    const IntVec a = hn::BitCast(Ints(), codes), b = hn::BitCast(Ints(), x);
    const IntVec low =
        hn::Mul(hn::ShiftRight<16>(hn::ShiftLeft<16>(a)), hn::ShiftRight<16>(hn::ShiftLeft<16>(b)));
    const IntVec high = hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b));
    first = hn::Add(first, hn::Add(low, high));
#else
    const hn::Repartition<int16_t, Ints> halves;
    first = hn::ReorderWidenMulAccumulate(Ints(), hn::BitCast(halves, codes),
                                          hn::BitCast(halves, x), first, second);
#endif
  }
  HWY_INLINE IntVec Total() const {
#if HWY_TARGET == HWY_SCALAR
    return first;
#else
    return hn::RearrangeToOddPlusEven(first, second);
#endif
  }

  IntVec first, second;
};

// The same in one instruction of AVX2's registers, where the processor has it (IntegerUnit::kPairDots): a
// multiplication and an addition less to wait for, which is what several rows of x do.
#if HWY_TARGET == HWY_AVX2 && defined(PENSTOCK_PAIR_DOTS)
struct PairDotSum {
  HWY_INLINE PairDotSum() {}
  HWY_INLINE void Clear() { sum = hn::Zero(Ints()); }
  HWY_INLINE void Add(WordVec codes, WordVec x) {
    // Without the prefix the assembler takes AVX-512's encoding.
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum.raw) : "x"(codes.raw), "x"(x.raw));
  }
  HWY_INLINE IntVec Total() const { return sum; }

  IntVec sum;
};
#else
using PairDotSum = PairSum;
#endif

// A format says how many columns one step decodes, into how many pairs, and which columns make a
// pair. Pair: the codes of a pair. RawPair: the same
// times 2^RawShift(pair), one instruction each; formats without it have kHasRaw false. Sums of raw
// pairs fit into 32 bits (fixed_q4: at most 15 * 2^8 * 32639 * 16).
struct FixedQ8 {
  static constexpr DType kDType = DType::kQ8;
  static constexpr int kStepColumns = 4;
  static constexpr int kPairs = 2;
  static constexpr bool kHasRaw = false;
  struct Step {
    HWY_INLINE Step() {}
    WordVec word;
  };
  static constexpr int Column(int pair, int half) { return pair + 2 * half; }
  static HWY_INLINE void Load(const uint32_t* words, int step, Step& out) {
    out.word = hn::Load(Words(), words + step * 16);
  }
  template <int kPair>
  static HWY_INLINE WordVec Pair(const Step& step) {
    if constexpr (kPair == 0) return Masked<0xffu>(step.word);
    return TopOfHalves<8>(step.word);
  }
};

// Eight codes of four bits in a word: columns i and i + 4 of a word are a pair.
template <int kPair>
HWY_INLINE WordVec NibblePair(WordVec word) {
  if constexpr (kPair == 0) return Masked<0xfu>(word);
  if constexpr (kPair == 3) return TopOfHalves<4>(word);
  return Masked<0xfu>(hn::ShiftRight<4 * (kPair % 3)>(word));
}
template <int kPair>
HWY_INLINE WordVec RawNibblePair(WordVec word) {
  if constexpr (kPair == 3) return TopOfHalves<4>(word);
  return Masked<0xfu << (4 * (kPair % 3))>(word);
}

struct FixedQ4 {
  static constexpr DType kDType = DType::kQ4;
  static constexpr int kStepColumns = 8;
  static constexpr int kPairs = 4;
  static constexpr bool kHasRaw = true;
  struct Step {
    HWY_INLINE Step() {}
    WordVec word;
  };
  static constexpr int Column(int pair, int half) { return pair + 4 * half; }
  static HWY_INLINE void Load(const uint32_t* words, int step, Step& out) {
    out.word = hn::Load(Words(), words + step * 16);
  }
  template <int kPair>
  static HWY_INLINE WordVec Pair(const Step& step) {
    return NibblePair<kPair>(step.word);
  }
  template <int kPair>
  static HWY_INLINE WordVec RawPair(const Step& step) {
    return RawNibblePair<kPair>(step.word);
  }
};

// The even and the odd columns of a step become two words of eight codes, four bits apart.
struct FixedQ3 {
  static constexpr DType kDType = DType::kQ3;
  static constexpr int kStepColumns = 16;
  static constexpr int kPairs = 8;
  static constexpr bool kHasRaw = true;
  using Step = Q3Format::Step;
  static constexpr int Column(int pair, int half) { return pair / 4 + 2 * (pair % 4 + 4 * half); }
  static HWY_INLINE void Load(const uint32_t* words, int step, Step& out) {
    Q3Format::Load(words, step, out);
  }
  template <int kPair>
  static HWY_INLINE WordVec Pair(const Step& step) {
    return NibblePair<kPair % 4>(kPair < 4 ? step.even : step.odd);
  }
  template <int kPair>
  static HWY_INLINE WordVec RawPair(const Step& step) {
    return RawNibblePair<kPair % 4>(kPair < 4 ? step.even : step.odd);
  }
};

struct FixedQ2 {
  static constexpr DType kDType = DType::kQ2;
  static constexpr int kStepColumns = 16;
  static constexpr int kPairs = 8;
  static constexpr bool kHasRaw = false;
  struct Step {
    HWY_INLINE Step() {}
    WordVec word;
  };
  static constexpr int Column(int pair, int half) { return pair + 8 * half; }
  static HWY_INLINE void Load(const uint32_t* words, int step, Step& out) {
    out.word = hn::Load(Words(), words + step * 16);
  }
  template <int kPair>
  static HWY_INLINE WordVec Pair(const Step& step) {
    if constexpr (kPair == 0) return Masked<3u>(step.word);
    if constexpr (kPair == 7) return TopOfHalves<2>(step.word);
    return Masked<3u>(hn::ShiftRight<2 * (kPair % 7)>(step.word));
  }
};

// Packed x of one block: [rows, 64] 16-bit numbers in the order of the pairs, then the rows' scales
// and the rows' sums, at the next multiple of 64 bytes.
constexpr int64_t PackedCodesBytes(int rows) {
  return rows * kGroupColumns * 2;
}
constexpr int64_t PackedBlockBytes(int rows) {
  return PackedCodesBytes(rows) + (rows * 8 + 63) / 64 * 64;
}

// A single row needs memory's whole bandwidth, and gets it best from one stream.
inline constexpr int kPanelsOfRow = 1;

// Of that stream, so much is asked for ahead, into the second cache, as the processor's own prefetcher
// begins anew at every page: 4 KiB or the first cache gain less on Intel and lose on AMD.
inline constexpr int64_t kPrefetchDistance = 8 << 10;

// Asks for a list of panels as one stream, and for nothing behind it.
class PanelStream {
 public:
  HWY_INLINE PanelStream(const std::byte* const* panels, int num_panels, int64_t blocks,
                         int64_t block_bytes)
      : panels_(panels), end_(panels + num_panels), left_(blocks), blocks_(blocks) {
    place_ = panels[0];
    for (int64_t ahead = 0; ahead < kPrefetchDistance; ahead += block_bytes) next(block_bytes);
  }
  HWY_INLINE void next(int64_t block_bytes) {
    if (left_ == 0) {
      if (panels_ == end_ || ++panels_ == end_) return;
      place_ = *panels_;
      left_ = blocks_;
    }
    for (int64_t line = 0; line < block_bytes; line += 64) {
      __builtin_prefetch(place_ + line, 0, 2);
    }
    place_ += block_bytes;
    --left_;
  }

 private:
  const std::byte* const* panels_;
  const std::byte* const* end_;
  const std::byte* place_;
  int64_t left_, blocks_;
};

// A single row has registers left for sums of codes that were not shifted down.
#if HWY_TARGET == HWY_AVX3
inline constexpr bool kHasRegistersForRaw = true;
#else
inline constexpr bool kHasRegistersForRaw = false;
#endif

// The register tile: kPanels panels by kRows rows of x.
template <class Format, class Sum, int kPanels, int kRows>
struct FixedTile {
  static constexpr int64_t kBlockBytes = block_bytes(Format::kDType);
  static constexpr int kSteps = static_cast<int>(kGroupColumns) / Format::kStepColumns;
  static constexpr bool kIsRaw = kRows == 1 && Format::kHasRaw && kHasRegistersForRaw;
  static constexpr int kChains = kIsRaw ? 3 : 1;  // of raw nibbles: times 1, 16, 256

  HWY_INLINE FixedTile() {}

  Sum sums[kPanels][kVectors][kRows][kChains];

  template <int kPair>
  HWY_INLINE void AddPair(const typename Format::Step (&steps)[kPanels][kVectors],
                          const uint32_t* x) {
    WordVec codes[kPanels][kVectors];
    PENSTOCK_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        if constexpr (kIsRaw) {
          codes[p][v] = Format::template RawPair<kPair>(steps[p][v]);
        } else {
          codes[p][v] = Format::template Pair<kPair>(steps[p][v]);
        }
      }
    }
    constexpr int kChain = kIsRaw ? kPair % 4 % 3 : 0;
    PENSTOCK_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const WordVec pair = hn::Set(Words(), x[r * kGroupColumns / 2 + kPair]);
      PENSTOCK_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        PENSTOCK_UNROLL
        for (int v = 0; v < kVectors; ++v) sums[p][v][r][kChain].Add(codes[p][v], pair);
      }
    }
  }

  template <int... kPairs>
  HWY_INLINE void AddStep(const uint32_t* const (&words)[kPanels], int step, const uint32_t* x,
                          std::integer_sequence<int, kPairs...>) {
    typename Format::Step steps[kPanels][kVectors];
    PENSTOCK_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) Format::Load(words[p] + v * kLanes, step, steps[p][v]);
    }
    (AddPair<kPairs>(steps, x), ...);
  }

  // totals: [kPanels, kRows, 16]
  HWY_INLINE void AddBlock(const uint32_t* const (&words)[kPanels], const std::byte* packed,
                           float* totals) {
    PENSTOCK_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        PENSTOCK_UNROLL
        for (int r = 0; r < kRows; ++r) {
          PENSTOCK_UNROLL
          for (int c = 0; c < kChains; ++c) sums[p][v][r][c].Clear();
        }
      }
    }
    const auto* x = reinterpret_cast<const uint32_t*>(packed);
    constexpr auto kPairs = std::make_integer_sequence<int, Format::kPairs>();
    for (int step = 0; step < kSteps; ++step)
      AddStep(words, step, x + step * Format::kPairs, kPairs);
    const auto* scales = reinterpret_cast<const float*>(packed + PackedCodesBytes(kRows));
    PENSTOCK_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        AddToTotals(words[p], v, sums[p][v], scales, totals + p * kRows * 16 + v * kLanes);
      }
    }
  }

  static HWY_INLINE IntVec Total(const Sum (&chains)[kChains]) {
    if constexpr (!kIsRaw) return chains[0].Total();
    else {
      const IntVec sixteenth = hn::ShiftRight<4>(chains[1].Total());
      return hn::Add(hn::Add(chains[0].Total(), sixteenth), hn::ShiftRight<8>(chains[2].Total()));
    }
  }

  static HWY_INLINE void AddToTotals(const uint32_t* words, int v, const Sum (&sum)[kRows][kChains],
                                     const float* scales, float* totals) {
    const auto* halves = reinterpret_cast<const uint16_t*>(words + kBlockBytes / 4 - 16);
    using FloatTile = Tile<F32Format, 1, 1>;
    const FloatVec scale = FloatTile::LoadBF16(halves + v * kLanes);
    const FloatVec bias = FloatTile::LoadBF16(halves + 16 + v * kLanes);
    PENSTOCK_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const FloatVec product =
          hn::Mul(hn::ConvertTo(Floats(), Total(sum[r])), hn::Set(Floats(), scales[r]));
      const FloatVec total = TwiceRounded(scale, product, hn::Load(Floats(), totals + r * 16));
      hn::Store(TwiceRounded(bias, hn::Set(Floats(), scales[kRows + r]), total), Floats(),
                totals + r * 16);
    }
  }
};

// Rows enough to be calculated rather than waited for.
struct NoStream {
  HWY_INLINE void next(int64_t) {}
};

template <class Format, class Sum, int kPanels, int kRows, class Stream>
HWY_INLINE void MultiplyFixedTile(const std::byte* const* panels, int64_t blocks,
                                  const std::byte* packed, float* totals, Stream& stream) {
  const uint32_t* words[kPanels];
  for (int p = 0; p < kPanels; ++p) words[p] = reinterpret_cast<const uint32_t*>(panels[p]);
  std::fill_n(totals, kPanels * kRows * 16, 0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    FixedTile<Format, Sum, kPanels, kRows> tile;
    stream.next(block_bytes(Format::kDType));
    tile.AddBlock(words, packed, totals);
    for (int p = 0; p < kPanels; ++p) words[p] += block_bytes(Format::kDType) / 4;
    packed += PackedBlockBytes(kRows);
  }
}

template <class Format, class Sum, int kRows>
void MultiplyFixedPanels(const std::byte* const* panels, int num_panels, int64_t blocks,
                         const std::byte* packed, float* totals) {
  if constexpr (kRows == 1) {
    PanelStream stream(panels, num_panels, blocks, block_bytes(Format::kDType));
    for (int p = 0; p < num_panels; ++p) {
      MultiplyFixedTile<Format, PairSum, kPanelsOfRow, 1>(panels + p, blocks, packed,
                                                          totals + p * 16, stream);
    }
  } else {
    constexpr int kWide = PanelsOfTile(kRows);
    NoStream none;
    int p = 0;
    for (; p + kWide <= num_panels; p += kWide) {
      MultiplyFixedTile<Format, Sum, kWide, kRows>(panels + p, blocks, packed,
                                                   totals + p * kRows * 16, none);
    }
    for (; p < num_panels; ++p) {
      MultiplyFixedTile<Format, Sum, 1, kRows>(panels + p, blocks, packed, totals + p * kRows * 16,
                                               none);
    }
  }
}

template <class Format, class Sum>
void MultiplyFixed(const std::byte* const* panels, int num_panels, int64_t blocks,
                   const std::byte* packed, const float* /*sums*/, int padded, float* totals) {
  WithRows(padded, [&](auto rows) {
    MultiplyFixedPanels<Format, Sum, decltype(rows)::value>(panels, num_panels, blocks, packed,
                                                            totals);
  });
}

// Where the format's pairs of numbers come from, for sixteen columns at a time.
template <class Format>
struct PairOrder {
  static constexpr Gather16 kGather = [] {
    std::array<uint8_t, 32> from = {};
    for (int word = 0; word < 8; ++word) {
      const int start = word / Format::kPairs * Format::kStepColumns;
      for (int half = 0; half < 2; ++half) {
        const int column = start + Format::Column(word % Format::kPairs, half);
        for (int byte = 0; byte < 2; ++byte) {
          from[static_cast<size_t>(4 * word + 2 * half + byte)] =
              static_cast<uint8_t>(2 * column + byte);
        }
      }
    }
    return Gather16(from);
  }();
};

template <class Format>
void PackFixed(const FixedRow* rows, int num_rows, int64_t columns, std::byte* packed) {
  const int padded = PaddedRows(num_rows);
  const int64_t block_size = PackedBlockBytes(padded);
  const int64_t blocks = columns / kGroupColumns;
  for (int64_t block = 0; block < blocks; ++block) {
    std::byte* codes = packed + block * block_size;
    auto* scales = reinterpret_cast<float*>(codes + PackedCodesBytes(padded));
    for (int r = 0; r < num_rows; ++r) {
      auto* out = reinterpret_cast<uint8_t*>(codes + PackedCodesBytes(r));
      const int16_t* numbers = rows[r].numbers + block * kGroupColumns;
      for (int64_t c = 0; c < kGroupColumns; c += 16) {
        PairOrder<Format>::kGather.Run(numbers + c, out + 2 * c, out + 2 * c + 16);
      }
      scales[r] = rows[r].scales[block];
      scales[padded + r] = rows[r].sums[block];
    }
    std::fill(codes + PackedCodesBytes(num_rows), codes + PackedCodesBytes(padded), std::byte{0});
    std::fill(scales + num_rows, scales + padded, 0.0f);
    std::fill(scales + padded + num_rows, scales + 2 * padded, 0.0f);
  }
}

template <class Format, class Sum>
inline constexpr ProductKernel kFixedKernel = {kTileRows,
                                               kPanelsOfRow,
                                               false,
                                               &PaddedRows,
                                               nullptr,
                                               &PackFixed<Format>,
                                               &MultiplyFixed<Format, Sum>};

// Two: by vectors alone, and with KernelChoice::has_pair_dots.
template <class Format>
const ProductKernel* FixedKernelsOf() {
  static constexpr ProductKernel kKernels[] = {kFixedKernel<Format, PairSum>,
                                               kFixedKernel<Format, PairDotSum>};
  return kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
