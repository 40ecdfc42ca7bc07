// The panel product of quantised formats in fixed point by tiles of bytes (byte_tiles.h), for many
// rows of x: codes are spread to bytes once for two tiles of rows, and while the unit multiplies one
// block, the vectors scale the sums of the block before.
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

// 64 numbers as high and low bytes, in the format's order.
template <class Format>
HWY_INLINE void SplitNumbers(const uint32_t* numbers, uint8_t* high, uint8_t* low) {
#if HWY_TARGET == HWY_SCALAR
  for (int c = 0; c < kGroupColumns; ++c) {
    const uint32_t number = numbers[c / 16 * 16 + Format::kOrder[static_cast<size_t>(c % 16)]];
    high[c] = static_cast<uint8_t>(number >> 8);
    low[c] = static_cast<uint8_t>(number);
  }
#else
  alignas(64) uint8_t plain_high[kGroupColumns], plain_low[kGroupColumns];
  for (int c = 0; c < kGroupColumns; ++c) {
    plain_high[c] = static_cast<uint8_t>(numbers[c] >> 8);
    plain_low[c] = static_cast<uint8_t>(numbers[c]);
  }
  const hn::FixedTag<uint8_t, 16> bytes;
  const auto order = hn::LoadU(bytes, Format::kOrder.data());
  for (int c = 0; c < kGroupColumns; c += 16) {
    hn::Store(hn::TableLookupBytes(hn::Load(bytes, plain_high + c), order), bytes, high + c);
    hn::Store(hn::TableLookupBytes(hn::Load(bytes, plain_low + c), order), bytes, low + c);
  }
#endif
}

template <class Format>
void PackTiles(const float* const* rows, int num_rows, int64_t columns, std::byte* packed) {
  const int64_t block_size = PackedTilesBytes(num_rows);
  const int64_t blocks = columns / kGroupColumns;
  for (int r = 0; r < num_rows; ++r) {
    const int64_t place =
        r / kByteTileRows * 2 * kByteTileBytes + r % kByteTileRows * kGroupColumns;
    for (int64_t first = 0; first < blocks; first += FixedScales::kBlocks) {
      const int64_t end = std::min(first + FixedScales::kBlocks, blocks);
      const FixedScales found(rows[r] + first * kGroupColumns, end - first);
      for (int64_t block = first; block < end; ++block) {
        alignas(64) uint32_t numbers[kGroupColumns];
        const float scale = found.scales[block - first];
        const float sum = FixedNumbers(rows[r] + block * kGroupColumns,
                                       found.factors[block - first], scale, numbers);
        std::byte* start = packed + block * block_size;
        auto* bytes = reinterpret_cast<uint8_t*>(start + place);
        SplitNumbers<Format>(numbers, bytes, bytes + kByteTileBytes);
        auto* scales = reinterpret_cast<float*>(start + TileBytesOf(num_rows));
        scales[r] = scale;
        scales[num_rows + r] = sum;
      }
    }
  }
  // The unit multiplies whole tiles; what it makes of rows that are not there is not read, but
  // memory that was never written must not be either.
  const int missing = TilesOf(num_rows) * kByteTileRows - num_rows;
  if (missing == 0) return;
  const int64_t tile = static_cast<int64_t>(TilesOf(num_rows) - 1) * 2 * kByteTileBytes;
  const int64_t row = num_rows % kByteTileRows * kGroupColumns;
  for (int64_t block = 0; block < blocks; ++block) {
    std::byte* start = packed + block * block_size + tile + row;
    std::fill_n(start, missing * kGroupColumns, std::byte{0});
    std::fill_n(start + kByteTileBytes, missing * kGroupColumns, std::byte{0});
  }
}

// totals: [rows, 16] += scale * (sums * the row's scale) + bias * the row's sum
template <class Format>
HWY_INLINE void AddSums(const uint32_t* words, const int32_t* sums, const float* scales, int rows,
                        float* totals) {
  const auto* halves =
      reinterpret_cast<const uint16_t*>(words + block_bytes(Format::kDType) / 4 - 16);
  using FloatTile = Tile<F32Format, 1, 1>;
  for (int v = 0; v < 16; v += kLanes) {
    const FloatVec scale = FloatTile::LoadBF16(halves + v);
    const FloatVec bias = FloatTile::LoadBF16(halves + 16 + v);
    for (int r = 0; r < rows; ++r) {
      const int32_t* of_row =
          sums + r / kByteTileRows * 2 * kByteTileSums + r % kByteTileRows * 16 + v;
      const IntVec high = hn::Load(Ints(), of_row);
      const IntVec low = hn::Load(Ints(), of_row + kByteTileSums);
      const IntVec sum = hn::Add(hn::ShiftLeft<8>(high), low);
      const FloatVec product = hn::Mul(hn::ConvertTo(Floats(), sum), hn::Set(Floats(), scales[r]));
      float* place = totals + r * 16 + v;
      const FloatVec total = TwiceRounded(scale, product, hn::Load(Floats(), place));
      hn::Store(TwiceRounded(bias, hn::Set(Floats(), scales[rows + r]), total), Floats(), place);
    }
  }
}

template <class Unit, class Format, int kCount>
void MultiplyTilePanel(const uint32_t* words, int64_t blocks, const std::byte* packed, int rows,
                       float* totals) {
  alignas(64) uint32_t spread[2][kByteTileBytes / 4];
  alignas(64) int32_t sums[2][kCount * 2 * kByteTileSums];
  const int64_t block_size = PackedTilesBytes(rows);
  constexpr int64_t kBlockWords = block_bytes(Format::kDType) / 4;
  std::fill_n(totals, rows * 16, 0.0f);
  const auto scales_of = [&](int64_t block) {
    return reinterpret_cast<const float*>(packed + block * block_size + TileBytesOf(rows));
  };
  for (int64_t block = 0; block < blocks; ++block) {
    const uint32_t* codes = Format::Spread(words + block * kBlockWords, spread[block % 2]);
    Unit::template products<kCount>(packed + block * block_size, codes, sums[block % 2]);
    if (block == 0) continue;
    AddSums<Format>(words + (block - 1) * kBlockWords, sums[(block - 1) % 2], scales_of(block - 1),
                    rows, totals);
  }
  AddSums<Format>(words + (blocks - 1) * kBlockWords, sums[(blocks - 1) % 2], scales_of(blocks - 1),
                  rows, totals);
}

template <class Unit, class Format>
void MultiplyTiles(const std::byte* const* panels, int num_panels, int64_t blocks,
                   const std::byte* packed, const float* /*sums*/, int rows, float* totals) {
  Unit::begin();
  for (int p = 0; p < num_panels; ++p) {
    const auto* words = reinterpret_cast<const uint32_t*>(panels[p]);
    float* place = totals + p * rows * 16;
    if (rows <= kByteTileRows) {
      MultiplyTilePanel<Unit, Format, 1>(words, blocks, packed, rows, place);
    } else {
      MultiplyTilePanel<Unit, Format, 2>(words, blocks, packed, rows, place);
    }
  }
  Unit::end();
}

inline int AllRows(int rows) {
  return rows;
}

template <class Unit, class Format>
const ProductKernel* TileKernelOf() {
  static constexpr ProductKernel kKernel = {
      kByteTilesAtOnce * kByteTileRows, 1, false, &AllRows, &PackTiles<Format>,
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
