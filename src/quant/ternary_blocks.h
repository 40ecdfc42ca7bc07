// Blocks of 256 values of -d, 0, d: TQ1_0, TQ2_0.
//
//   TQ2_0  bits 2k, 2k+1 of q[32 h + j], less 1, for element 128 h + 32 k + j;  h < 2, k < 4
//   TQ1_0  five (in `rest` four) base-3 digits in one byte, as a fraction of 256: digit k of byte b
//          is (b 3^k mod 256) 3 div 256, less 1.
//          bytes q[0..31] hold elements 32 k + j, q[32..47] elements 160 + 16 k + j (k < 5),
//          rest[0..3] elements 240 + 4 k + j (k < 4)
//
// Source  The published layout of GGUF's types; checked against PyPI `gguf` block by block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

struct BlockTq1_0 {
  uint8_t q[48];
  uint8_t rest[4];
  uint16_t d;
};
struct BlockTq2_0 {
  uint8_t q[64];
  uint16_t d;
};
static_assert(sizeof(BlockTq1_0) == 54 && offsetof(BlockTq1_0, d) == 52);
static_assert(sizeof(BlockTq2_0) == 66 && offsetof(BlockTq2_0, d) == 64);

void decode_tq1_0(const std::byte* block, float* out);
void decode_tq2_0(const std::byte* block, float* out);

}  // namespace penstock
