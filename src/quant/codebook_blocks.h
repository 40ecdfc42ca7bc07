// Four-bit blocks whose codes name one of sixteen values: IQ4_NL, IQ4_XS, MXFP4.
//
//   IQ4_NL  32: d * kIq4Values[q];  nibbles i and i + 16 share a byte, as in Q4_0
//   IQ4_XS  256: d (s[g] - 32) * kIq4Values[q], groups of 32; within a group the same nibbles.
//           s: nibble g % 2 of scales_low[g / 2], and bits 2g, 2g+1 of scales_high above it
//   MXFP4   32: 2^(e - 127) * value of E2M1;  nibbles i and i + 16 share a byte
//
// E8M0, the scale of MXFP4, is a power of two: 2^(e - 127), e = 0 to 254; 255 is not a number in
// the standard and is 2^128 here, as GGUF's own arithmetic has it: half of it times twice a value.
//
// Source  The published layout of GGUF's types; OCP Microscaling Formats 1.0.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock {

inline constexpr std::array<int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                      1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values of E2M1, sign in bit 3.
inline constexpr std::array<int8_t, 16> kE2m1Doubled = {0, 1,  2,  3,  4,  6,  8,  12,
                                                        0, -1, -2, -3, -4, -6, -8, -12};

struct BlockIq4Nl {
  uint16_t d;
  uint8_t q[16];
};
struct BlockIq4Xs {
  uint16_t d;
  uint16_t scales_high;
  uint8_t scales_low[4];
  uint8_t q[128];
};
struct BlockMxfp4 {
  uint8_t e;
  uint8_t q[16];
};
static_assert(sizeof(BlockIq4Nl) == 18 && offsetof(BlockIq4Nl, q) == 2);
static_assert(sizeof(BlockIq4Xs) == 136 && offsetof(BlockIq4Xs, q) == 8);
static_assert(sizeof(BlockMxfp4) == 17 && offsetof(BlockMxfp4, q) == 1);

// 2^(e - 128), exact for every byte: times a doubled value it is the weight.
float half_of_e8m0(uint8_t e);

void decode_iq4_nl(const std::byte* block, float* out);  // 32
void decode_iq4_xs(const std::byte* block, float* out);  // 256
void decode_mxfp4(const std::byte* block, float* out);   // 32

}  // namespace penstock
