// The panel product of quantised formats in fixed point by tiles of bytes (byte_tiles.h), for many
// rows of x: two tiles of rows by the codes of two panels, which are spread to bytes for them.
#include <algorithm>
#include <array>

#include "compute/cpu/byte_tiles.h"
#include "compute/cpu/product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/byte_tile_product.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/fixed_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

// A format says in which order columns come: kOrder[k] is the column, of each sixteen, whose codes
// are the k-th bytes. Spread() writes the 16 words of a tile's rows, 16 lanes each, or says where
// they are already.
//
// q8, q4 and q2: a word has 8 / kBits codes under each byte, which come out one after the other.
template <DType kType>
struct ByteWords {
  static constexpr DType kDType = kType;
  static constexpr int kBits = bits_of(kType);
  static constexpr int kCodes = 8 / kBits;     // under a byte
  static constexpr int kColumns = 4 * kCodes;  // of a word
  static constexpr std::array<uint8_t, 16> kOrder = [] {
    std::array<uint8_t, 16> order = {};
    for (int k = 0; k < 16; ++k) {
      const int in_word = k % kColumns;
      order[static_cast<size_t>(k)] =
          static_cast<uint8_t>(k - in_word + in_word % 4 * kCodes + in_word / 4);
    }
    return order;
  }();

  static HWY_INLINE const uint32_t* Spread(const uint32_t* words, uint32_t* out) {
    if constexpr (kCodes == 1) return words;
    const WordVec mask = hn::Set(Words(), ((1u << kBits) - 1) * 0x01010101u);
    for (int w = 0; w < 16 / kCodes; ++w) {
      for (int v = 0; v < 16; v += kLanes) {
        WordVec word = hn::Load(Words(), words + w * 16 + v);
        PENSTOCK_UNROLL
        for (int code = 0; code < kCodes; ++code) {
          hn::Store(hn::And(word, mask), Words(), out + (w * kCodes + code) * 16 + v);
          word = hn::ShiftRight<kBits % 8>(word);
        }
      }
    }
    return out;
  }
};

// q3: as q4, once its high bits are beside the low ones; the even columns, then the odd ones.
struct ByteQ3 {
  static constexpr DType kDType = DType::kQ3;
  static constexpr std::array<uint8_t, 16> kOrder = {0, 4, 8, 12, 2, 6, 10, 14,
                                                     1, 5, 9, 13, 3, 7, 11, 15};
  static HWY_INLINE const uint32_t* Spread(const uint32_t* words, uint32_t* out) {
    const WordVec mask = hn::Set(Words(), 0x07070707u);
    for (int step = 0; step < 4; ++step) {
      for (int v = 0; v < 16; v += kLanes) {
        Q3Format::Step codes;
        Q3Format::Load(words + v, step, codes);
        uint32_t* place = out + step * 64 + v;
        hn::Store(hn::And(codes.even, mask), Words(), place);
        hn::Store(hn::And(hn::ShiftRight<4>(codes.even), mask), Words(), place + 16);
        hn::Store(hn::And(codes.odd, mask), Words(), place + 32);
        hn::Store(hn::And(hn::ShiftRight<4>(codes.odd), mask), Words(), place + 48);
      }
    }
    return out;
  }
};

// Packed x of one block: per tile of 16 rows the high and the low bytes, then the rows' scales and
// the rows' sums.
constexpr int TilesOf(int rows) {
  return (rows + kByteTileRows - 1) / kByteTileRows;
}
constexpr int64_t TileBytesOf(int rows) {
  return TilesOf(rows) * 2 * kByteTileBytes;
}
constexpr int64_t PackedTilesBytes(int rows) {
  return TileBytesOf(rows) + (rows * 8 + 63) / 64 * 64;
}

// Where the high and the low bytes come from, for sixteen columns at a time.
template <class Format>
struct ByteOrder {
  static constexpr Gather16 kGather = [] {
    std::array<uint8_t, 32> from = {};
    for (size_t k = 0; k < 16; ++k) {
      from[k] = static_cast<uint8_t>(2 * Format::kOrder[k] + 1);
      from[16 + k] = static_cast<uint8_t>(2 * Format::kOrder[k]);
    }
    return Gather16(from);
  }();
};

template <class Format>
void PackTiles(const FixedRow* rows, int num_rows, int64_t columns, std::byte* packed) {
  const int64_t block_size = PackedTilesBytes(num_rows);
  const int64_t blocks = columns / kGroupColumns;
  const auto place_of = [](int r) {
    return r / kByteTileRows * 2 * kByteTileBytes + r % kByteTileRows * kGroupColumns;
  };
  // The unit multiplies whole tiles; what it makes of rows that are not there is not read, but
  // memory that was never written must not be either.
  const int whole = TilesOf(num_rows) * kByteTileRows;
  for (int64_t block = 0; block < blocks; ++block) {
    std::byte* start = packed + block * block_size;
    auto* scales = reinterpret_cast<float*>(start + TileBytesOf(num_rows));
    for (int r = 0; r < num_rows; ++r) {
      auto* high = reinterpret_cast<uint8_t*>(start + place_of(r));
      const int16_t* numbers = rows[r].numbers + block * kGroupColumns;
      for (int64_t c = 0; c < kGroupColumns; c += 16) {
        ByteOrder<Format>::kGather.Run(numbers + c, high + c, high + kByteTileBytes + c);
      }
      scales[r] = rows[r].scales[block];
      scales[num_rows + r] = rows[r].sums[block];
    }
    for (int r = num_rows; r < whole; ++r) {
      std::fill_n(start + place_of(r), kGroupColumns, std::byte{0});
      std::fill_n(start + place_of(r) + kByteTileBytes, kGroupColumns, std::byte{0});
    }
  }
}

// totals: [rows, 16]; to those of rows [first, end), which one tile holds, what one block adds:
// total += scale * (sum * the row's scale), total += bias * the row's sum
template <class Format>
HWY_INLINE void AddBlock(const uint32_t* words, const std::byte* packed, int rows,
                         const int32_t* sums, int first, int end, float* totals) {
  using FloatTile = Tile<F32Format, 1, 1>;
  const int place = first / kByteTileRows * 2 * kByteTileSums + first % kByteTileRows * 16;
  const auto* halves =
      reinterpret_cast<const uint16_t*>(words + block_bytes(Format::kDType) / 4 - 16);
  const auto* scales = reinterpret_cast<const float*>(packed + TileBytesOf(rows));
  for (int v = 0; v < 16; v += kLanes) {
    const FloatVec scale = FloatTile::LoadBF16(halves + v);
    const FloatVec bias = FloatTile::LoadBF16(halves + 16 + v);
    for (int r = first; r < end; ++r) {
      const int at = place + (r - first) * 16 + v;
      const FloatVec total = hn::Load(Floats(), totals + r * 16 + v);
      const IntVec high = hn::Load(Ints(), sums + at);
      const IntVec low = hn::Load(Ints(), sums + kByteTileSums + at);
      const IntVec sum = hn::Add(hn::ShiftLeft<8>(high), low);
      const FloatVec product = hn::Mul(hn::ConvertTo(Floats(), sum), hn::Set(Floats(), scales[r]));
      const FloatVec scaled = TwiceRounded(scale, product, total);
      hn::Store(TwiceRounded(bias, hn::Set(Floats(), scales[rows + r]), scaled), Floats(),
                totals + r * 16 + v);
    }
  }
}

// kPanels panels, so that x is loaded once for all of them. Nothing of one block is kept for the next
// but the totals: sums and codes of several would push x out of the first cache, and the other thread
// of a core has the unit while this one has the vectors.
template <class Unit, class Format, int kTiles, int kPanels>
void MultiplyTilePanels(const std::byte* const* panels, int64_t blocks, const std::byte* packed,
                        int rows, float* totals) {
  constexpr int kPanelSums = kTiles * 2 * kByteTileSums;
  alignas(64) uint32_t spread[kPanels][kByteTileBytes / 4];
  alignas(64) int32_t sums[kPanels * kPanelSums];
  const int64_t block_size = PackedTilesBytes(rows);
  const int split = std::min(rows, kByteTileRows);
  std::fill_n(totals, kPanels * rows * 16, 0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    const std::byte* x = packed + block * block_size;
    std::array<const uint32_t*, kPanels> words, codes;
    for (size_t p = 0; p < kPanels; ++p) {
      words[p] = reinterpret_cast<const uint32_t*>(panels[p] + block * block_bytes(Format::kDType));
      codes[p] = Format::Spread(words[p], spread[p]);
    }
    Unit::template products<kTiles, kPanels>(x, codes, sums);
    for (size_t p = 0; p < kPanels; ++p) {
      const int32_t* of_panel = sums + p * kPanelSums;
      float* place = totals + static_cast<int64_t>(p) * rows * 16;
      AddBlock<Format>(words[p], x, rows, of_panel, 0, split, place);
      if (kTiles == 2) AddBlock<Format>(words[p], x, rows, of_panel, split, rows, place);
    }
  }
}

template <class Unit, class Format, int kTiles>
void MultiplyRowTiles(const std::byte* const* panels, int num_panels, int64_t blocks,
                      const std::byte* packed, int rows, float* totals) {
  int p = 0;
  for (; p + kByteTilePanels <= num_panels; p += kByteTilePanels) {
    MultiplyTilePanels<Unit, Format, kTiles, kByteTilePanels>(panels + p, blocks, packed, rows,
                                                              totals + p * rows * 16);
  }
  for (; p < num_panels; ++p) {
    MultiplyTilePanels<Unit, Format, kTiles, 1>(panels + p, blocks, packed, rows,
                                                totals + p * rows * 16);
  }
}

template <class Unit, class Format>
void MultiplyTiles(const std::byte* const* panels, int num_panels, int64_t blocks,
                   const std::byte* packed, const float* /*sums*/, int rows, float* totals) {
  Unit::begin();
  if (rows <= kByteTileRows) {
    MultiplyRowTiles<Unit, Format, 1>(panels, num_panels, blocks, packed, rows, totals);
  } else {
    MultiplyRowTiles<Unit, Format, 2>(panels, num_panels, blocks, packed, rows, totals);
  }
  Unit::end();
}

inline int AllRows(int rows) {
  return rows;
}

template <class Unit, class Format>
const ProductKernel* TileKernelOf() {
  static constexpr ProductKernel kKernel = {
      kByteTilesAtOnce * kByteTileRows, 1, false, &AllRows, nullptr, &PackTiles<Format>,
      &MultiplyTiles<Unit, Format>};
  return &kKernel;
}

template <class Unit>
const ProductKernel* TileKernel(DType dtype) {
  static constexpr struct {
    DType dtype;
    const ProductKernel* (*kernel)();
  } kKernels[] = {
      {DType::kQ8, &TileKernelOf<Unit, ByteWords<DType::kQ8>>},
      {DType::kQ4, &TileKernelOf<Unit, ByteWords<DType::kQ4>>},
      {DType::kQ3, &TileKernelOf<Unit, ByteQ3>},
      {DType::kQ2, &TileKernelOf<Unit, ByteWords<DType::kQ2>>},
  };
  for (const auto& row : kKernels) {
    if (row.dtype == dtype) return row.kernel();
  }
  return nullptr;
}

const ProductKernel* ByteTileKernel(DType dtype, ByteTiles byte_tiles) {
  return byte_tiles == ByteTiles::kProcessor ? TileKernel<ProcessorTiles>(dtype)
                                             : TileKernel<EmulatedTiles>(dtype);
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(ByteTileKernel);
const ProductKernel& byte_tile_kernel(DType dtype, int64_t target, ByteTiles byte_tiles) {
  const ProductKernel* kernel = PENSTOCK_AT_TARGET(ByteTileKernel, target)(dtype, byte_tiles);
  PENSTOCK_CHECK(kernel != nullptr);
  return *kernel;
}
}  // namespace penstock
#endif
