#version 460
// Products of quantised matrices in panels (compute/panel.h) with rows in fixed point (fixed.glsl),
// of several matrices at once: out[r] = w x, or exact_silu(gate x) * (up x).
//
// A group of threads does one panel of one matrix, for up to kTokens rows: thread (row, part) takes
// blocks part, part + 16, ... of its row, whose sums are whole numbers and so need no order; what
// they are worth as floats waits in shared memory, and one thread for each row and token adds it up
// in the order of the blocks.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "exact.glsl"
#include "fixed.glsl"

layout(local_size_x = 16, local_size_y = 16) in;
layout(constant_id = 1) const uint kTokens = 1;   // 1, 2, 4 or 8
layout(constant_id = 2) const uint kDepth = 1;    // blocks of a thread between two barriers
layout(constant_id = 3) const bool kIsGated = false;

struct Tile {
  uvec2 matrix, up;  // of a matrix that is not gated, up is not read
  uint first, count;  // of the list of rows; at most kTokens
  uint up_first_row, unused;
};
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Tiles {
  Tile at[];
};

layout(push_constant) uniform Arguments {
  uvec2 tiles;   // [gl_NumWorkGroups.y]
  uvec2 list;    // pairs of words: a row of x, a row of the result
  uvec2 x;       // packed rows
  uvec2 result;  // f32 [rows, stride]
  uint blocks;   // of a row of x, and of the matrices
  uint rows;     // of the result's that are written
  uint stride;   // of the result, in floats
};

const uint kParts = 16, kRows = 16;
shared vec2 worth[kTokens * kDepth * kParts * kRows];

uint code_words() {
  return 2 * kBits;
}

// Words of four codes each, one in each byte: group g of word w (compute/panel.h).
uint codes_of(uint word, uint high_bits, uint w, uint g) {
  if (kBits == 8) return word ^ 0x80808080u;  // less 128, to be signed bytes
  if (kBits == 4) return (word >> (4 * g)) & 0x0f0f0f0fu;
  uint codes = (word >> (2 * g)) & 0x03030303u;
  if (kBits == 2) return codes;
  return codes | (((high_bits >> (4 * (g >> 1) + 2 * (w & 1) + (g & 1))) & 0x01010101u) << 2);
}

// What a block of a row is worth to each token: its sum with the scale, and with the bias.
void take_block(Words panels, uint row, uint block, uint depth, Tile tile) {
  uint words = code_words();
  uint part = gl_LocalInvocationID.y;
  uint start = ((row / kRows) * blocks + block) * (words + 1) * kRows + row % kRows;
  uint codes[16];
  const uint groups = groups_of_bits();
  if (kBits == 3) {
    uint high[2];
    for (uint w = 0; w < 2; ++w) high[w] = panels.at[start + (4 + w) * kRows];
    for (uint w = 0; w < 4; ++w) {
      uint word = panels.at[start + w * kRows];
      for (uint g = 0; g < 4; ++g) codes[4 * w + g] = codes_of(word, high[w >> 1], w, g);
    }
  } else {
    for (uint w = 0; w < words; ++w) {
      uint word = panels.at[start + w * kRows];
      for (uint g = 0; g < groups; ++g) codes[groups * w + g] = codes_of(word, 0, w, g);
    }
  }
  uint pair = start - row % kRows + words * kRows + row % kRows / 2;
  uint shift = 16 * (row & 1);
  float scale = uintBitsToFloat((panels.at[pair] >> shift) << 16);
  float bias = uintBitsToFloat((panels.at[pair + kRows / 2] >> shift) << 16);
  for (uint t = 0; t < tile.count; ++t) {
    uint from = (Words(list).at[2 * (tile.first + t)] * blocks + block) * kFixedVectors;
    int high = 0, low = 0;
    for (uint i = 0; i < 4; ++i) {
      uvec4 h = Words4(x).at[from + i], l = Words4(x).at[from + 4 + i];
      for (uint k = 0; k < 4; ++k) {
        high += packed_dot(h[k], codes[4 * i + k]);
        low += packed_dot(l[k], codes[4 * i + k]);
      }
    }
    uvec4 rest = Words4(x).at[from + 8];
    int sum = 256 * high + low;
    if (kBits == 8) sum += 128 * int(rest.z);
    float with_scale = mul(scale, mul(float(sum), uintBitsToFloat(rest.x)));
    float with_bias = mul(bias, uintBitsToFloat(rest.y));
    worth[((t * kDepth + depth) * kParts + part) * kRows + gl_LocalInvocationID.x] =
        vec2(with_scale, with_bias);
  }
}

// The product of this thread's row (x) with token y, for the threads that add up.
float product_of(uvec2 matrix, uint row, Tile tile) {
  float total = 0.0;
  uint token = gl_LocalInvocationID.y;
  for (uint first = 0; first < blocks; first += kDepth * kParts) {
    for (uint depth = 0; depth < kDepth; ++depth) {
      uint block = first + depth * kParts + gl_LocalInvocationID.y;
      if (block < blocks) take_block(Words(matrix), row, block, depth, tile);
    }
    barrier();
    if (token < tile.count) {
      uint end = min(blocks - first, kDepth * kParts);
      for (uint b = 0; b < end; ++b) {
        vec2 pair = worth[(token * kDepth * kParts + b) * kRows + gl_LocalInvocationID.x];
        total = add(add(total, pair.x), pair.y);
      }
    }
    barrier();
  }
  return total;
}

void main() {
  Tile tile = Tiles(tiles).at[gl_WorkGroupID.y];
  uint row = gl_WorkGroupID.x * kRows + gl_LocalInvocationID.x;
  uint near = min(row, rows - 1);  // threads behind the last row work for nobody
  float value = product_of(tile.matrix, near, tile);
  if (kIsGated) {
    float up = product_of(tile.up, tile.up_first_row + near, tile);
    value = exact_product(exact_silu(value), up);
  }
  uint token = gl_LocalInvocationID.y;
  if (token >= tile.count || row >= rows) return;
  FloatsOut(result).at[Words(list).at[2 * (tile.first + token) + 1] * stride + row] = value;
}
