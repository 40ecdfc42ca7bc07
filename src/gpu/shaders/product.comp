#version 460
// Products of quantised matrices in panels (compute/panel.h) with rows in fixed point (fixed.glsl),
// of several matrices at once: out[r] = w x, or exact_silu(gate x) * (up x).
//
// A group of threads does one panel of one matrix, for up to kTokens rows: thread (row, part) takes
// blocks part, part + kParts, ... of its row, whose sums are whole numbers and so need no order; what
// they are worth as floats waits in shared memory, and one thread for each row and token adds it up
// in the order of the blocks. Gate and up go through together where there is one token: then a second
// thread adds up the other one's.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "exact.glsl"
#include "fixed.glsl"

layout(local_size_x = 16, local_size_y_id = 4) in;  // parts: at least kTokens, and 2 if gated
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

const uint kParts = gl_WorkGroupSize.y, kRows = 16;
const uint kAtOnce = kIsGated && kTokens == 1 ? 2 : 1;  // matrices
shared vec2 worth[kAtOnce * kTokens * kDepth * kParts * kRows];

// Where the worth of a block is: `which` counts tokens, or the matrices of one.
uint place_of(uint which, uint block) {
  return (which * kDepth * kParts + block) * kRows + gl_LocalInvocationID.x;
}

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
void take_block(Words panels, uint row, uint block, uint depth, uint which, Tile tile) {
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
  uint count = kTokens == 1 ? 1 : tile.count;
  for (uint t = 0; t < count; ++t) {
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
    worth[place_of(which + t, depth * kParts + part)] = vec2(with_scale, with_bias);
  }
}

// What the blocks of a round are worth, added to the total in their order.
float add_round(float total, uint which, uint count) {
  for (uint b = 0; b < count; ++b) {
    vec2 pair = worth[place_of(which, b)];
    total = add(add(total, pair.x), pair.y);
  }
  return total;
}

// The product of this thread's row (x) with token y, for the threads that add up.
float product_of(uvec2 matrix, uint row, Tile tile) {
  float total = 0.0;
  uint token = gl_LocalInvocationID.y;
  for (uint first = 0; first < blocks; first += kDepth * kParts) {
    for (uint depth = 0; depth < kDepth; ++depth) {
      uint block = first + depth * kParts + gl_LocalInvocationID.y;
      if (block < blocks) take_block(Words(matrix), row, block, depth, 0, tile);
    }
    barrier();
    if (token < tile.count) {
      total = add_round(total, token, min(blocks - first, kDepth * kParts));
    }
    barrier();
  }
  return total;
}

// The gate's product with the one token where y is 0, the up's where it is 1.
float gate_or_up(uint row, Tile tile) {
  float total = 0.0;
  uint which = gl_LocalInvocationID.y;
  for (uint first = 0; first < blocks; first += kDepth * kParts) {
    for (uint depth = 0; depth < kDepth; ++depth) {
      uint block = first + depth * kParts + gl_LocalInvocationID.y;
      if (block >= blocks) continue;
      take_block(Words(tile.matrix), row, block, depth, 0, tile);
      take_block(Words(tile.up), tile.up_first_row + row, block, depth, 1, tile);
    }
    barrier();
    if (which < 2) total = add_round(total, which, min(blocks - first, kDepth * kParts));
    barrier();
  }
  return total;
}

void main() {
  Tile tile = Tiles(tiles).at[gl_WorkGroupID.y];
  uint row = gl_WorkGroupID.x * kRows + gl_LocalInvocationID.x;
  uint near = min(row, rows - 1);  // threads behind the last row work for nobody
  uint token = gl_LocalInvocationID.y;
  float value;
  if (kAtOnce == 2) {
    value = gate_or_up(near, tile);
    if (token == 1) worth[gl_LocalInvocationID.x].x = value;
    barrier();
    value = exact_product(exact_silu(value), worth[gl_LocalInvocationID.x].x);
  } else {
    value = product_of(tile.matrix, near, tile);
    if (kIsGated) {
      float up = product_of(tile.up, tile.up_first_row + near, tile);
      value = exact_product(exact_silu(value), up);
    }
  }
  if (token >= tile.count || row >= rows) return;
  FloatsOut(result).at[Words(list).at[2 * (tile.first + token) + 1] * stride + row] = value;
}
