// Bodies of the products of byte_tiles.h, which includes this file.
#pragma once

#include <type_traits>

#include "base/check.h"
#include "compute/cpu/byte_tiles.h"

namespace penstock {

#if defined(__x86_64__)

// 64 bytes that say how the eight registers are cut: all of 16 rows of 64 bytes.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

inline void ProcessorTiles::begin() {
  static constexpr TileConfiguration kConfiguration;
  asm volatile("ldtilecfg %0" : : "m"(kConfiguration));
}

inline void ProcessorTiles::end() {
  asm volatile("tilerelease");
}

// The unit's registers, which compilers use none of. (Operands in the order of the assembler.)
template <int kTo>
inline void load_tile(const void* from) {
  asm volatile("tileloadd (%[from],%[stride],1), %%tmm%c[to]"
               :
               : [from] "r"(from), [stride] "r"(int64_t{64}), [to] "i"(kTo)
               : "memory");
}
template <int kFrom>
inline void store_tile(void* to) {
  asm volatile("tilestored %%tmm%c[from], (%[to],%[stride],1)"
               :
               : [to] "r"(to), [stride] "r"(int64_t{64}), [from] "i"(kFrom)
               : "memory");
}
template <int kCodes, int kX, int kSums, bool kIsSigned>
inline void multiply_tiles() {
  asm volatile("tilezero %%tmm%c[sums]" : : [sums] "i"(kSums));
  if constexpr (kIsSigned) {
    asm volatile("tdpbsud %%tmm%c[codes], %%tmm%c[x], %%tmm%c[sums]"
                 :
                 : [codes] "i"(kCodes), [x] "i"(kX), [sums] "i"(kSums));
  } else {
    asm volatile("tdpbuud %%tmm%c[codes], %%tmm%c[x], %%tmm%c[sums]"
                 :
                 : [codes] "i"(kCodes), [x] "i"(kX), [sums] "i"(kSums));
  }
}

// Registers 0 to 3: sums, 4 and 5: x, 6 and 7: codes.
template <int kPart, int kTiles, int kPanels>
inline void multiply_part(const std::byte* x, int32_t* sums) {
  const auto multiply = [&]<int kTile>(std::integral_constant<int, kTile>) {
    load_tile<4 + kTile>(x + (2 * kTile + kPart) * kByteTileBytes);
    multiply_tiles<6, 4 + kTile, 2 * kTile, kPart == 0>();
    if constexpr (kPanels == 2) multiply_tiles<7, 4 + kTile, 2 * kTile + 1, kPart == 0>();
  };
  const auto store = [&]<int kTile>(std::integral_constant<int, kTile>) {
    int32_t* place = sums + (2 * kTile + kPart) * kByteTileSums;
    store_tile<2 * kTile>(place);
    if constexpr (kPanels == 2) store_tile<2 * kTile + 1>(place + kTiles * 2 * kByteTileSums);
  };
  multiply(std::integral_constant<int, 0>());
  if constexpr (kTiles == 2) multiply(std::integral_constant<int, 1>());
  store(std::integral_constant<int, 0>());
  if constexpr (kTiles == 2) store(std::integral_constant<int, 1>());
}

template <int kTiles, int kPanels>
void ProcessorTiles::products(const std::byte* x, const TilesOfCodes<kPanels>& codes,
                              int32_t* sums) {
  static_assert(kTiles <= kByteTilesAtOnce && kPanels <= kByteTilePanels);
  load_tile<6>(codes[0]);
  if constexpr (kPanels == 2) load_tile<7>(codes[1]);
  multiply_part<0, kTiles, kPanels>(x, sums);
  multiply_part<1, kTiles, kPanels>(x, sums);
}

#else

inline void ProcessorTiles::begin() {
  PENSTOCK_CHECK(false);
}
inline void ProcessorTiles::end() {}
template <int kTiles, int kPanels>
void ProcessorTiles::products(const std::byte*, const TilesOfCodes<kPanels>&, int32_t*) {
  PENSTOCK_CHECK(false);
}

#endif

template <int kTiles, int kPanels>
void EmulatedTiles::products(const std::byte* x, const TilesOfCodes<kPanels>& codes,
                             int32_t* sums) {
  for (int panel = 0; panel < kPanels; ++panel) {
    for (int part = 0; part < 2 * kTiles; ++part) {
      for (int place = 0; place < kByteTileSums; ++place) {
        const std::byte* bytes = x + part * kByteTileBytes + place / 16 * 64;
        const uint32_t* words = codes[static_cast<size_t>(panel)] + place % 16;
        int32_t sum = 0;
        for (int k = 0; k < 64; ++k) {
          const auto code = static_cast<int32_t>(words[k / 4 * 16] >> (k % 4 * 8) & 0xff);
          const auto byte = std::to_integer<uint8_t>(bytes[k]);
          sum += code * (part % 2 == 0 ? int32_t{static_cast<int8_t>(byte)} : int32_t{byte});
        }
        sums[(panel * 2 * kTiles + part) * kByteTileSums + place] = sum;
      }
    }
  }
}

}  // namespace penstock
