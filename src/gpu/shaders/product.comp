#version 460
// Products of quantised matrices in panels (weights.glsl) with rows in fixed point (fixed.glsl), of
// several matrices at once: out[r] = w x, or exact_silu(gate x) * (up x).
//
// A group of threads does one panel of one matrix, for up to kTokens rows: thread (row, part) takes
// blocks part, part + kParts, ... of its row, whose sums are whole numbers and so need no order; what
// they are worth as floats waits in shared memory, and one thread for each row and token adds it up
// in the order of the blocks, and in a block of its groups. Gate and up go through together where
// there is one token: then a second thread adds up the other one's.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "exact.glsl"
#include "fixed.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "tiles.glsl"

layout(local_size_x = 16, local_size_y_id = 4) in;  // parts: at least kTokens, and 2 if gated
layout(constant_id = 1) const uint kTokens = 1;   // 1, 2, 4 or 8
layout(constant_id = 2) const uint kDepth = 1;    // blocks of a thread between two barriers
layout(constant_id = 3) const bool kIsGated = false;

const uint kParts = gl_WorkGroupSize.y;
const uint kAtOnce = kIsGated && kTokens == 1 ? 2 : 1;  // matrices
const uint kPairs = kHasMinima ? kGroups : kGroups / 2;  // of terms that a block adds
shared vec2 worth[kAtOnce * kTokens * kDepth * kParts * kPairs * kRows];

// Where a pair of the terms of a block is: `which` counts tokens, or the matrices of one.
uint place_of(uint which, uint block, uint pair) {
  return ((which * kDepth * kParts + block) * kPairs + pair) * kRows + gl_LocalInvocationID.x;
}

// What a block of a row is worth to each token: of each group its sum with the scale, and with the
// minimum where there are such.
void take_block(Planes planes, uint row, uint block, uint depth, uint which, Tile tile) {
  BlockPlace at = block_place(planes, row, block, blocks);
  uint codes[16];
  float scales[4], minima[4];
  take_codes(at, codes);
  take_scales(planes, at, scales, minima);
  uint count = kTokens == 1 ? 1 : tile.count;
  for (uint t = 0; t < count; ++t) {
    uint from = (Words(list).at[2 * (tile.first + t)] * blocks + block) * kFixedVectors;
    uvec4 rest = Words4(x).at[from + 8];
    float x_scale = uintBitsToFloat(rest.x);
    float terms[4];
    for (uint g = 0; g < kGroups; ++g) {
      int high = 0, low = 0;
      for (uint i = g * 4 / kGroups; i < (g + 1) * 4 / kGroups; ++i) {
        uvec4 h = Words4(x).at[from + i], l = Words4(x).at[from + 4 + i];
        for (uint k = 0; k < 4; ++k) {
          high += packed_dot(h[k], codes[4 * i + k]);
          low += packed_dot(l[k], codes[4 * i + k]);
        }
      }
      int inputs = kGroups == 1 ? int(rest.y + rest.z) : int(g == 0 ? rest.y : rest.z);
      float sum = float(256 * high + low + kCodeOffset * inputs);
      float with_scale = mul(scales[g], mul(sum, x_scale));
      if (kHasMinima) {
        float all = kGroups == 1 ? uintBitsToFloat(rest.w) : mul(float(inputs), x_scale);
        terms[2 * g] = with_scale;
        terms[2 * g + 1] = mul(minima[g], all);
      } else {
        terms[g] = with_scale;
      }
    }
    for (uint pair = 0; pair < kPairs; ++pair) {
      worth[place_of(which + t, depth * kParts + gl_LocalInvocationID.y, pair)] =
          vec2(terms[2 * pair], terms[2 * pair + 1]);
    }
  }
}

// What the blocks of a round are worth, added to the total in their order.
float add_round(float total, uint which, uint count) {
  for (uint b = 0; b < count; ++b) {
    for (uint pair = 0; pair < kPairs; ++pair) {
      vec2 terms = worth[place_of(which, b, pair)];
      total = add(add(total, terms.x), terms.y);
    }
  }
  return total;
}

// The product of this thread's row (x) with token y, for the threads that add up.
float product_of(Planes matrix, uint row, Tile tile) {
  float total = 0.0;
  uint token = gl_LocalInvocationID.y;
  for (uint first = 0; first < blocks; first += kDepth * kParts) {
    for (uint depth = 0; depth < kDepth; ++depth) {
      uint block = first + depth * kParts + gl_LocalInvocationID.y;
      if (block < blocks) take_block(matrix, row, block, depth, 0, tile);
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
      take_block(tile.matrix, row, block, depth, 0, tile);
      take_block(tile.up, tile.up_first_row + row, block, depth, 1, tile);
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
