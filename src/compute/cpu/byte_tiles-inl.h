// Bodies of the products of byte_tiles.h, which includes this file.
#pragma once

#include "compute/cpu/byte_tiles.h"

#ifdef PENSTOCK_ARM_BYTE_TILES
#include <arm_neon.h>
#endif

#include <type_traits>

#include "base/check.h"

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

#elif defined(PENSTOCK_ARM_BYTE_TILES)

inline void ProcessorTiles::begin() {}
inline void ProcessorTiles::end() {}

// Files are compiled for processors that have no such instructions; the assembler is told of them, beside those
// that the compiler may use.
#define PENSTOCK_BYTE_TILES ".arch armv8.2-a+crypto+dotprod+i8mm\n\t"

// sums [2 rows of codes, 2 rows of x] += codes [2, 8] x [2, 8]
template <bool kIsSigned>
inline void multiply_rows(int32x4_t& sums, uint8x16_t codes, uint8x16_t x) {
  if constexpr (kIsSigned) {
    asm(PENSTOCK_BYTE_TILES "usmmla %0.4s, %1.16b, %2.16b" : "+w"(sums) : "w"(codes), "w"(x));
  } else {
    asm(PENSTOCK_BYTE_TILES "ummla %0.4s, %1.16b, %2.16b" : "+w"(sums) : "w"(codes), "w"(x));
  }
}
// sums [4 rows of codes] += codes [4, 4] x [4 of a word]
inline void multiply_word(int32x4_t& sums, uint8x16_t codes, uint8x16_t x) {
  asm(PENSTOCK_BYTE_TILES "udot %0.4s, %1.16b, %2.16b" : "+w"(sums) : "w"(codes), "w"(x));
}
#undef PENSTOCK_BYTE_TILES

// One part of a tile of x by a tile of codes with dot products of unsigned bytes. Signed ones are made 128
// larger, and what that adds is taken off again.
template <bool kIsSigned>
inline void multiply_words(const std::byte* x, const uint32_t* codes, int32_t* sums) {
  const uint8x16_t flip = vdupq_n_u8(kIsSigned ? 0x80 : 0);
  int32x4_t added[4];
  for (int four = 0; four < 4; ++four) {
    added[four] = vdupq_n_s32(0);
    if (!kIsSigned) continue;
    for (int k = 0; k < 16; ++k) {
      multiply_word(added[four], vreinterpretq_u8_u32(vld1q_u32(codes + k * 16 + 4 * four)), flip);
    }
  }
  for (int row = 0; row < kByteTileRows; row += 4) {
    int32x4_t block[4][4];  // [row of x, four rows of codes]
    for (auto& of_row : block) {
      for (int32x4_t& sum : of_row) sum = vdupq_n_s32(0);
    }
    for (int k = 0; k < 16; ++k) {
      uint8x16_t words[4];
      for (int four = 0; four < 4; ++four) {
        words[four] = vreinterpretq_u8_u32(vld1q_u32(codes + k * 16 + 4 * four));
      }
      for (int r = 0; r < 4; ++r) {
        const auto* place = reinterpret_cast<const uint32_t*>(x + (row + r) * 64) + k;
        const uint8x16_t word = veorq_u8(vreinterpretq_u8_u32(vld1q_dup_u32(place)), flip);
        for (int four = 0; four < 4; ++four) multiply_word(block[r][four], words[four], word);
      }
    }
    for (int r = 0; r < 4; ++r) {
      for (int four = 0; four < 4; ++four) {
        vst1q_s32(sums + (row + r) * 16 + 4 * four, vsubq_s32(block[r][four], added[four]));
      }
    }
  }
}

// A tile as the unit takes it: two rows by eight columns to a register.
struct RowPairs {
  uint8x16_t of[8][8];  // [two rows, eight columns]

  static RowPairs of_codes(const uint32_t* words) {
    RowPairs pairs;
    for (int step = 0; step < 8; ++step) {
      for (int four = 0; four < 4; ++four) {
        const uint32x4_t first = vld1q_u32(words + 2 * step * 16 + 4 * four);
        const uint32x4_t second = vld1q_u32(words + (2 * step + 1) * 16 + 4 * four);
        pairs.of[2 * four][step] = vreinterpretq_u8_u32(vzip1q_u32(first, second));
        pairs.of[2 * four + 1][step] = vreinterpretq_u8_u32(vzip2q_u32(first, second));
      }
    }
    return pairs;
  }
  static RowPairs of_x(const std::byte* x) {
    RowPairs pairs;
    const auto* bytes = reinterpret_cast<const uint8_t*>(x);
    for (int pair = 0; pair < 8; ++pair) {
      for (int step = 0; step < 8; ++step) {
        const uint8_t* place = bytes + 2 * pair * 64 + 8 * step;
        pairs.of[pair][step] = vcombine_u8(vld1_u8(place), vld1_u8(place + 64));
      }
    }
    return pairs;
  }
};

// A block of 8 rows of codes by 8 of x, in sixteen registers.
template <bool kIsSigned>
inline void multiply_pairs(const RowPairs& codes, int first_code, const RowPairs& x, int first_x,
                           int32_t* sums) {
  int32x4_t block[4][4];
  for (auto& row : block) {
    for (int32x4_t& sum : row) sum = vdupq_n_s32(0);
  }
  for (int step = 0; step < 8; ++step) {
    for (int c = 0; c < 4; ++c) {
      for (int r = 0; r < 4; ++r) {
        multiply_rows<kIsSigned>(block[c][r], codes.of[first_code + c][step],
                                 x.of[first_x + r][step]);
      }
    }
  }
  for (int r = 0; r < 4; ++r) {
    int32_t* even = sums + 2 * (first_x + r) * 16 + 2 * first_code;
    for (int c = 0; c < 4; c += 2, even += 4) {
      vst1q_s32(even, vuzp1q_s32(block[c][r], block[c + 1][r]));
      vst1q_s32(even + 16, vuzp2q_s32(block[c][r], block[c + 1][r]));
    }
  }
}

template <int kTiles, int kPanels>
void multiply_by_words(const std::byte* x, const TilesOfCodes<kPanels>& codes, int32_t* sums) {
  for (int part = 0; part < 2 * kTiles; ++part) {
    for (int panel = 0; panel < kPanels; ++panel) {
      int32_t* place = sums + (panel * 2 * kTiles + part) * kByteTileSums;
      const uint32_t* of_panel = codes[static_cast<size_t>(panel)];
      if (part % 2 == 0) {
        multiply_words<true>(x + part * kByteTileBytes, of_panel, place);
      } else {
        multiply_words<false>(x + part * kByteTileBytes, of_panel, place);
      }
    }
  }
}

template <int kTiles, int kPanels>
void ProcessorTiles::products(const std::byte* x, const TilesOfCodes<kPanels>& codes,
                              int32_t* sums) {
  if (!has_byte_matrices()) return multiply_by_words<kTiles, kPanels>(x, codes, sums);
  RowPairs of_codes[kPanels];
  for (size_t panel = 0; panel < kPanels; ++panel) {
    of_codes[panel] = RowPairs::of_codes(codes[panel]);
  }
  for (int part = 0; part < 2 * kTiles; ++part) {
    const RowPairs of_x = RowPairs::of_x(x + part * kByteTileBytes);
    for (int panel = 0; panel < kPanels; ++panel) {
      int32_t* place = sums + (panel * 2 * kTiles + part) * kByteTileSums;
      for (int block = 0; block < 4; ++block) {
        const int first_code = block % 2 * 4, first_x = block / 2 * 4;
        if (part % 2 == 0) {
          multiply_pairs<true>(of_codes[panel], first_code, of_x, first_x, place);
        } else {
          multiply_pairs<false>(of_codes[panel], first_code, of_x, first_x, place);
        }
      }
    }
  }
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
