// Blocks of 256 whose codes name points of a grid: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS,
// IQ3_S.
//
// An index names a row of a table, eight neighbours at once (four in IQ3); the tables are facts of
// the format (grids.inc). d is f16 for the block, s a small integer for 32 or 16 neighbours. With
// group g of 32 elements and entry l of it (l < 4 of eight elements, l < 8 of four in IQ3):
//
//   IQ2_XXS  d (1/2 + s) / 4 * grid * sign   q[4g..4g+3] as two u32: four indices of 8 bits; four
//            sign codes of 7 bits, s in the top 4
//   IQ2_XS   the same sum   q[4g + l]: index in bits 0-8, sign code in 9-15; s of entries 2m, 2m+1:
//            nibble m of scales[g]
//   IQ2_S    the same sum   index q[4g + l], above it bits 2l, 2l+1 of high[g]; signs[4g + l] has a
//            bit per element; s as in IQ2_XS
//   IQ3_XXS  d (1/2 + s) / 2 * grid * sign   index q[8g + l]; word g of tail: four sign codes, s
//   IQ3_S    d (1 + 2 s) * grid * sign       index q[8g + l], above it bit l of high[g];
//            signs[4g + l / 2] has a bit per element; s: nibble g % 2 of scales[g / 2]
//   IQ1_S    d (2 s + 1) (grid + delta)      index q[4g + l], above it bits 3l.. of high[g]; s in
//            its bits 12-14; delta = 1/8, or -1/8 where bit 15 is set
//   IQ1_M    the same sum   e = 4g + l: index q[e], above it bits 0-2 of nibble e % 2 of
//            high[e / 2];
//            bit 3 of it: delta = -1/8; s of entries 2m, 2m+1: bits 3 (m % 4).. of scales[m / 4];
//            d: the top nibbles of scales[0..3], lowest first
//
// A sign code of 7 bits has an eighth that makes the number of minus signs even. Every product is
// exact in f32.
//
// Source  The published layout of GGUF's types; checked against PyPI `gguf` block by block.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock {

struct BlockIq2Xxs {
  uint16_t d;
  uint16_t q[32];
};
struct BlockIq2Xs {
  uint16_t d;
  uint16_t q[32];
  uint8_t scales[8];
};
struct BlockIq2S {
  uint16_t d;
  uint8_t q[32];
  uint8_t signs[32];
  uint8_t high[8];
  uint8_t scales[8];
};
struct BlockIq3Xxs {
  uint16_t d;
  uint8_t q[64];
  uint16_t tail[16];
};
struct BlockIq3S {
  uint16_t d;
  uint8_t q[64];
  uint8_t high[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
struct BlockIq1S {
  uint16_t d;
  uint8_t q[32];
  uint16_t high[8];
};
struct BlockIq1M {
  uint8_t q[32];
  uint8_t high[16];
  uint16_t scales[4];
};
static_assert(sizeof(BlockIq2Xxs) == 66);
static_assert(sizeof(BlockIq2Xs) == 74 && offsetof(BlockIq2Xs, scales) == 66);
static_assert(sizeof(BlockIq2S) == 82 && offsetof(BlockIq2S, high) == 66);
static_assert(sizeof(BlockIq3Xxs) == 98 && offsetof(BlockIq3Xxs, tail) == 66);
static_assert(sizeof(BlockIq3S) == 110 && offsetof(BlockIq3S, signs) == 74);
static_assert(sizeof(BlockIq1S) == 50 && offsetof(BlockIq1S, high) == 34);
static_assert(sizeof(BlockIq1M) == 56 && offsetof(BlockIq1M, scales) == 48);

// Neighbours of one scale as whole numbers: those of IQ2 and IQ3 with their signs, 16 of IQ2_XS and
// IQ2_S, 32 of the others.
struct GridGroup {
  float scale = 0;
  std::array<int8_t, 32> codes = {};
};
GridGroup iq2_xxs_group(const BlockIq2Xxs& block, int group);
GridGroup iq2_xs_group(const BlockIq2Xs& block, int group);
GridGroup iq2_s_group(const BlockIq2S& block, int group);
GridGroup iq3_xxs_group(const BlockIq3Xxs& block, int group);
GridGroup iq3_s_group(const BlockIq3S& block, int group);

// The same tables for kernels: four neighbours without signs in the bytes of a word; a row of IQ2 is
// two words.
extern const std::array<uint32_t, 2 * 256> kIq2XxsWords;
extern const std::array<uint32_t, 2 * 512> kIq2XsWords;
extern const std::array<uint32_t, 2 * 1024> kIq2SWords;
extern const std::array<uint32_t, 256> kIq3XxsWords;
extern const std::array<uint32_t, 512> kIq3SWords;

// One block, at any address, to 256 floats.
void decode_iq1_s(const std::byte* block, float* out);
void decode_iq1_m(const std::byte* block, float* out);
void decode_iq2_xxs(const std::byte* block, float* out);
void decode_iq2_xs(const std::byte* block, float* out);
void decode_iq2_s(const std::byte* block, float* out);
void decode_iq3_xxs(const std::byte* block, float* out);
void decode_iq3_s(const std::byte* block, float* out);

}  // namespace penstock
