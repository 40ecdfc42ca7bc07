#version 460
// Rows of f32 into 16-bit fixed point (fixed.glsl), 16 threads to a block of 64 columns. A group of
// threads does 16 blocks of one row. Threads load what lies side by side, since x may be on the other
// side of a link, and then exchange it.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "exact.glsl"
#include "fixed.glsl"

layout(local_size_x = 16, local_size_y = 16) in;
layout(constant_id = 0) const uint kFours = 1;  // of codes in a word of the weights

layout(push_constant) uniform Arguments {
  uvec2 x;       // f32 [rows, stride], each row at a multiple of 16 bytes
  uvec2 packed;  // [rows, blocks] of fixed.glsl
  uvec2 list;    // pairs of words; the second is the row to pack. 0: rows in their order
  uint blocks;   // of a row
  uint stride;   // of x, in floats
};

shared uvec4 loaded[16][16];
shared uint largest_of[16][16];
shared int sum_of[16][16];

void main() {
  uint lane = gl_LocalInvocationID.x, part = gl_LocalInvocationID.y;
  uint block = gl_WorkGroupID.x * 16 + part;
  bool is_there = block < blocks;
  uint row = gl_WorkGroupID.y;
  if ((list.x | list.y) != 0) row = Words(list).at[2 * row + 1];

  uint first_column = row * stride + kBlockColumns * block;
  loaded[part][lane] = is_there ? Words4(x).at[first_column / 4 + lane] : uvec4(0);
  barrier();
  uint column = 4 * kFours * (lane / kFours) + lane % kFours;
  float values[4];
  uint largest = 0;
  for (uint k = 0; k < 4; ++k) {
    uint of_block = column + kFours * k;
    values[k] = uintBitsToFloat(loaded[part][of_block / 4][of_block % 4]);
    // Sizes compare as their bits do; what is not a number is larger than all numbers.
    largest = max(largest, floatBitsToUint(values[k]) & 0x7fffffffu);
  }
  largest_of[part][lane] = largest;
  barrier();
  for (uint i = 0; i < 16; ++i) largest = max(largest, largest_of[part][i]);

  bool is_finite = largest < 0x6f800000u;  // 2^96
  float m = uintBitsToFloat(max(largest, 0x21800000u));  // 2^-60
  float factor = mul(32639.0, exact_reciprocal(m));
  float scale = mul(m, uintBitsToFloat(0x38008183u));  // 1 / 32639
  uint high = 0, low = 0;
  int sum = 0;
  for (uint k = 0; k < 4; ++k) {
    const float kRound = 12582912.0;  // 1.5 * 2^23: sums with it are whole numbers
    int code = int(floatBitsToUint(add(mul(values[k], factor), kRound)) - 0x4b400000u);
    if (!is_finite) code = 0;
    int low_code = (code << 24) >> 24;
    high |= (uint((code - low_code) >> 8) & 0xffu) << (8 * k);
    low |= (uint(low_code) & 0xffu) << (8 * k);
    sum += code;
  }
  sum_of[part][lane] = sum;
  barrier();
  if (!is_there) return;
  uint start = (row * blocks + block) * kFixedWords;
  WordsOut(packed).at[start + lane] = high;
  WordsOut(packed).at[start + 16 + lane] = low;
  if (lane != 0) return;
  int first = 0, second = 0;
  for (uint i = 0; i < 8; ++i) {
    first += sum_of[part][i];
    second += sum_of[part][8 + i];
  }
  if (!is_finite) scale = uintBitsToFloat(0x7fc00000u);
  WordsOut(packed).at[start + 32] = floatBitsToUint(scale);
  WordsOut(packed).at[start + 33] = uint(first);
  WordsOut(packed).at[start + 34] = uint(second);
  WordsOut(packed).at[start + 35] = floatBitsToUint(mul(float(first + second), scale));
}
