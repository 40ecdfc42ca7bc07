// Blocks of 256 with scales of scales: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
//
// d (and m) are f16 for the block; groups of 16 or 32 neighbours have integer scales s (and
// minima n). Element i of the block, g its group:
//
//   Q2_K  d s[g] q - m n[g]        groups of 16; s, n: low, high nibble of scales[g]
//   Q3_K  d (s[g] - 32) (q - 4)    groups of 16; s: 6 bits, see below
//   Q4_K  d s[g] q - m n[g]        groups of 32; s, n: 6 bits, see below
//   Q5_K  d s[g] q - m n[g]        groups of 32; the same
//   Q6_K  d s[g] (q - 32)          groups of 16; s: signed bytes
//
// Where the bits of q are (bits of one byte are numbered from the lowest):
//   Q2_K  bits 2k, 2k+1 of q[32 h + j]       for element 128 h + 32 k + j;  h < 2, k < 4, j < 32
//   Q3_K  the two low bits the same in low[]; the third is bit 4 h + k of high[j]
//   Q4_K  nibble k of q[32 h + j]            for element 64 h + 32 k + j;   h < 4, k < 2
//   Q5_K  the four low bits the same in low[]; the fifth is bit 2 h + k of high[j]
//   Q6_K  nibble k / 2 of low[64 h + 32 (k % 2) + j] and bits 2k, 2k+1 of high[32 h + j] as bits 4
//         and 5, for element 128 h + 32 k + j;  h < 2, k < 4
// Where the scales of 6 bits are:
//   Q3_K  16 of them: nibble g / 8 of scales[g % 8], and bits 2 (g / 4), +1 of scales[8 + g % 4]
//   Q4_K, Q5_K  8 scales and 8 minima: for g < 4 the low 6 bits of scales[g] and of scales[4 + g];
//         for g >= 4 the low, the high nibble of scales[4 + g], and above it the two high bits of
//         scales[g - 4], of scales[g]
//
// Every product is exact in f32; the difference rounds once.
//
// Source  The published layout of GGUF's types; checked against PyPI `gguf` block by block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

inline constexpr int kSuperBlock = 256;

struct BlockQ2K {
  uint8_t scales[16];
  uint8_t q[64];
  uint16_t d;
  uint16_t m;
};
struct BlockQ3K {
  uint8_t high[32];
  uint8_t low[64];
  uint8_t scales[12];
  uint16_t d;
};
struct BlockQ4K {
  uint16_t d;
  uint16_t m;
  uint8_t scales[12];
  uint8_t q[128];
};
struct BlockQ5K {
  uint16_t d;
  uint16_t m;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t low[128];
};
struct BlockQ6K {
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ2K) == 84 && offsetof(BlockQ2K, d) == 80);
static_assert(sizeof(BlockQ3K) == 110 && offsetof(BlockQ3K, scales) == 96);
static_assert(sizeof(BlockQ4K) == 144 && offsetof(BlockQ4K, q) == 16);
static_assert(sizeof(BlockQ5K) == 176 && offsetof(BlockQ5K, low) == 48);
static_assert(sizeof(BlockQ6K) == 210 && offsetof(BlockQ6K, d) == 208);

// Scale and minimum of group g of a Q4_K or Q5_K block.
struct ScaleMin {
  uint8_t scale;
  uint8_t min;
};
ScaleMin k_scale_min(const uint8_t scales[12], int group);

// One block, at any address, to 256 floats.
void decode_q2_k(const std::byte* block, float* out);
void decode_q3_k(const std::byte* block, float* out);
void decode_q4_k(const std::byte* block, float* out);
void decode_q5_k(const std::byte* block, float* out);
void decode_q6_k(const std::byte* block, float* out);

}  // namespace penstock
