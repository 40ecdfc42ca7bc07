// Bodies of the products of byte_tiles.h, which includes this file.
#pragma once

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

// Registers 0 to 3: sums, 4 and 5: x, 7: codes. Compilers use none of them. (Operands in the order
// of the assembler: codes, x, sums.)
template <int kCount>
void ProcessorTiles::products(const std::byte* x, const uint32_t* codes, int32_t* sums) {
  static_assert(kCount == 1 || kCount == 2);
  const int64_t stride = 64;
  if constexpr (kCount == 1) {
    asm volatile(
        "tileloadd (%[codes],%[stride],1), %%tmm7\n\t"
        "tileloadd (%[x],%[stride],1), %%tmm4\n\t"
        "tilezero %%tmm0\n\t"
        "tdpbsud %%tmm7, %%tmm4, %%tmm0\n\t"
        "tileloadd 1024(%[x],%[stride],1), %%tmm5\n\t"
        "tilezero %%tmm1\n\t"
        "tdpbuud %%tmm7, %%tmm5, %%tmm1\n\t"
        "tilestored %%tmm0, (%[sums],%[stride],1)\n\t"
        "tilestored %%tmm1, 1024(%[sums],%[stride],1)"
        :
        : [x] "r"(x), [codes] "r"(codes), [sums] "r"(sums), [stride] "r"(stride)
        : "memory");
  } else {
    asm volatile(
        "tileloadd (%[codes],%[stride],1), %%tmm7\n\t"
        "tileloadd (%[x],%[stride],1), %%tmm4\n\t"
        "tilezero %%tmm0\n\t"
        "tdpbsud %%tmm7, %%tmm4, %%tmm0\n\t"
        "tileloadd 1024(%[x],%[stride],1), %%tmm5\n\t"
        "tilezero %%tmm1\n\t"
        "tdpbuud %%tmm7, %%tmm5, %%tmm1\n\t"
        "tileloadd 2048(%[x],%[stride],1), %%tmm4\n\t"
        "tilezero %%tmm2\n\t"
        "tdpbsud %%tmm7, %%tmm4, %%tmm2\n\t"
        "tileloadd 3072(%[x],%[stride],1), %%tmm5\n\t"
        "tilezero %%tmm3\n\t"
        "tdpbuud %%tmm7, %%tmm5, %%tmm3\n\t"
        "tilestored %%tmm0, (%[sums],%[stride],1)\n\t"
        "tilestored %%tmm1, 1024(%[sums],%[stride],1)\n\t"
        "tilestored %%tmm2, 2048(%[sums],%[stride],1)\n\t"
        "tilestored %%tmm3, 3072(%[sums],%[stride],1)"
        :
        : [x] "r"(x), [codes] "r"(codes), [sums] "r"(sums), [stride] "r"(stride)
        : "memory");
  }
}

#else

inline void ProcessorTiles::begin() {
  PENSTOCK_CHECK(false);
}
inline void ProcessorTiles::end() {}
template <int kCount>
void ProcessorTiles::products(const std::byte*, const uint32_t*, int32_t*) {
  PENSTOCK_CHECK(false);
}

#endif

template <int kCount>
void EmulatedTiles::products(const std::byte* x, const uint32_t* codes, int32_t* sums) {
  for (int part = 0; part < 2 * kCount; ++part) {
    for (int row = 0; row < kByteTileRows; ++row) {
      const std::byte* bytes = x + part * kByteTileBytes + row * 64;
      int32_t* out = sums + part * kByteTileSums + row * 16;
      for (int lane = 0; lane < 16; ++lane) {
        int32_t sum = 0;
        for (int k = 0; k < 64; ++k) {
          const auto code = static_cast<int32_t>(codes[k / 4 * 16 + lane] >> (k % 4 * 8) & 0xff);
          const auto byte = std::to_integer<uint8_t>(bytes[k]);
          sum += code * (part % 2 == 0 ? int32_t{static_cast<int8_t>(byte)} : int32_t{byte});
        }
        out[lane] = sum;
      }
    }
  }
}

}  // namespace penstock
