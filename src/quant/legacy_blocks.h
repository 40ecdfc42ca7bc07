// Blocks of 32 with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//
// The halves of a byte of `low` belong to elements i (low nibble) and i + 16 (high nibble); the
// fifth bit of element i is bit i of `high`.
//
//   Q4_0  d * (q - 8)     Q4_1  d * q + m     Q8_0  d * q, q signed
//   Q5_0  d * (q - 16)    Q5_1  d * q + m
//
// d and m are f16. Every product is exact in f32 (11 bits times at most 8); Q4_1 and Q5_1 round
// once, in the sum.
//
// Source  The published layout of GGUF's types; checked against PyPI `gguf` block by block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

struct BlockQ4_0 {
  uint16_t d;
  uint8_t low[16];
};
struct BlockQ4_1 {
  uint16_t d;
  uint16_t m;
  uint8_t low[16];
};
struct BlockQ5_0 {
  uint16_t d;
  uint8_t high[4];
  uint8_t low[16];
};
struct BlockQ5_1 {
  uint16_t d;
  uint16_t m;
  uint8_t high[4];
  uint8_t low[16];
};
struct BlockQ8_0 {
  uint16_t d;
  int8_t q[32];
};
static_assert(sizeof(BlockQ4_0) == 18 && offsetof(BlockQ4_0, low) == 2);
static_assert(sizeof(BlockQ4_1) == 20 && offsetof(BlockQ4_1, low) == 4);
static_assert(sizeof(BlockQ5_0) == 22 && offsetof(BlockQ5_0, low) == 6);
static_assert(sizeof(BlockQ5_1) == 24 && offsetof(BlockQ5_1, low) == 8);
static_assert(sizeof(BlockQ8_0) == 34 && offsetof(BlockQ8_0, q) == 2);

// One block, at any address, to 32 floats.
void decode_q4_0(const std::byte* block, float* out);
void decode_q4_1(const std::byte* block, float* out);
void decode_q5_0(const std::byte* block, float* out);
void decode_q5_1(const std::byte* block, float* out);
void decode_q8_0(const std::byte* block, float* out);

}  // namespace penstock
