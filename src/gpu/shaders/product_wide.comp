#version 460
// Products as product.comp has them, for tiles of many rows of x: up to 32.
//
// A group of threads does 64 rows of a matrix, block by block. Half of the threads unpack a row of
// the block each, the others bring the tile's rows of x, both into shared memory; then each thread has
// the whole numbers of four rows of the matrix with up to four of x, and adds what they are worth to
// totals of its own: in the order of the blocks, in a block of its groups. So codes are unpacked once
// for 32 rows of x, and what is loaded from shared memory goes into four packed dots a word or more.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "exact.glsl"
#include "fixed.glsl"
#include "numbers.glsl"
#include "weights.glsl"
#include "tiles.glsl"

layout(local_size_x = 16, local_size_y = 8) in;
layout(constant_id = 3) const bool kIsGated = false;

const uint kTileRows = 64, kTileTokens = 32;
const uint kEach = 4;  // rows and tokens of a thread: rows 4 x to 4 x + 3, tokens y, y + 8, ...
const uint kApart = 8;  // tokens of a thread
const uint kHalf = 64;  // of the threads: so many unpack, so many bring

// Row n lies at n % 4 * 18 + n / 4: neither those who write rows one after the other nor those who
// read every fourth one meet in a bank.
const uint kLane = 18, kVector = kEach * kLane;
shared uvec4 codes_of[4 * kVector];          // [vector][row]
shared vec2 scales_of[kGroups * kVector];    // [group][row]: scale, minimum
shared uvec4 x_of[kTileTokens * kFixedVectors];  // as packed

const uint kBrought = (kTileTokens * kFixedVectors + kHalf - 1) / kHalf;  // by a thread

// Of this thread's rows and tokens: sums of bytes of a group, and what all groups so far are worth.
int high[kEach * kEach], low[kEach * kEach];
float totals[kEach * kEach];

// Of sixteen columns.
int dots(uvec4 of_x, uvec4 codes) {
  return packed_dot(of_x.x, codes.x) + packed_dot(of_x.y, codes.y) +
         packed_dot(of_x.z, codes.z) + packed_dot(of_x.w, codes.w);
}

void unpack_row(Planes planes, uint row, uint block) {
  BlockPlace at = block_place(planes, row, block, blocks);
  uint codes[16];
  float scales[4], minima[4];
  take_codes(at, codes);
  take_scales(planes, at, scales, minima);
  uint to = gl_LocalInvocationIndex % kEach * kLane + gl_LocalInvocationIndex / kEach;
  [[unroll]] for (uint i = 0; i < 4; ++i) {
    codes_of[i * kVector + to] =
        uvec4(codes[4 * i], codes[4 * i + 1], codes[4 * i + 2], codes[4 * i + 3]);
  }
  [[unroll]] for (uint g = 0; g < kGroups; ++g) {
    scales_of[g * kVector + to] = vec2(scales[g], kHasMinima ? minima[g] : 0.0);
  }
}

// What the sums of a group are worth, of this thread's rows with one of its tokens.
void add_group(uint g, uint step) {
  uvec4 rest = x_of[(gl_LocalInvocationID.y + step * kApart) * kFixedVectors + 8];
  float x_scale = uintBitsToFloat(rest.x);
  int inputs = kGroups == 1 ? int(rest.y + rest.z) : int(g == 0 ? rest.y : rest.z);
  float all = kGroups == 1 ? uintBitsToFloat(rest.w) : mul(float(inputs), x_scale);
  [[unroll]] for (uint r = 0; r < kEach; ++r) {
    uint n = r * kEach + step;
    vec2 of_row = scales_of[g * kVector + r * kLane + gl_LocalInvocationID.x];
    float sum = float(256 * high[n] + low[n] + kCodeOffset * inputs);
    totals[n] = add(totals[n], mul(of_row.x, mul(sum, x_scale)));
    if (kHasMinima) totals[n] = add(totals[n], mul(of_row.y, all));
    high[n] = low[n] = 0;
  }
}

void add_block(uint steps) {
  [[dont_unroll]] for (uint i = 0; i < 4; ++i) {
    uvec4 codes[kEach];
    [[unroll]] for (uint r = 0; r < kEach; ++r) {
      codes[r] = codes_of[i * kVector + r * kLane + gl_LocalInvocationID.x];
    }
    bool ends_group = (i + 1) * kGroups % 4 == 0;
    [[unroll]] for (uint step = 0; step < kEach; ++step) {
      if (step < steps) {
        uint from = (gl_LocalInvocationID.y + step * kApart) * kFixedVectors + i;
        uvec4 h = x_of[from], l = x_of[from + 4];
        [[unroll]] for (uint r = 0; r < kEach; ++r) {
          high[r * kEach + step] += dots(h, codes[r]);
          low[r * kEach + step] += dots(l, codes[r]);
        }
        if (ends_group) add_group(i * kGroups / 4, step);
      }
    }
  }
}

// The totals of this thread's rows and tokens. `row` is the one that it unpacks, `from` and `brought`
// say what it brings.
void multiply(Planes planes, uint row, uint from[kBrought], uint brought, uint steps) {
  [[unroll]] for (uint n = 0; n < kEach * kEach; ++n) {
    totals[n] = 0.0;
    high[n] = low[n] = 0;
  }
  for (uint block = 0; block < blocks; ++block) {
    barrier();
    if (gl_LocalInvocationIndex < kHalf) {
      unpack_row(planes, row, block);
    } else {
      [[unroll]] for (uint i = 0; i < kBrought; ++i) {
        uint to = gl_LocalInvocationIndex - kHalf + i * kHalf;
        if (to < brought) x_of[to] = Words4(x).at[from[i] + block * kFixedVectors];
      }
    }
    barrier();
    add_block(steps);
  }
}

void write(Tile tile, uint first_row) {
  uint row = first_row + kEach * gl_LocalInvocationID.x;
  bool is_whole = row + kEach <= rows && ((result.x | stride << 2) & 15u) == 0;
  [[unroll]] for (uint step = 0; step < kEach; ++step) {
    uint token = gl_LocalInvocationID.y + step * kApart;
    if (token < tile.count) {
      uint to = Words(list).at[2 * (tile.first + token) + 1] * stride + row;
      if (is_whole) {
        Words4Out(result).at[to / 4] =
            uvec4(floatBitsToUint(totals[step]), floatBitsToUint(totals[kEach + step]),
                  floatBitsToUint(totals[2 * kEach + step]),
                  floatBitsToUint(totals[3 * kEach + step]));
      } else {
        [[unroll]] for (uint r = 0; r < kEach; ++r) {
          if (row + r < rows) FloatsOut(result).at[to + r] = totals[r * kEach + step];
        }
      }
    }
  }
}

void main() {
  Tile tile = Tiles(tiles).at[gl_WorkGroupID.y];
  uint first_row = gl_WorkGroupID.x * kTileRows;
  uint near = min(first_row + gl_LocalInvocationIndex % kHalf, rows - 1);
  uint steps = (tile.count + kApart - 1) / kApart;
  uint brought = tile.count * kFixedVectors;
  uint from[kBrought];
  [[unroll]] for (uint i = 0; i < kBrought; ++i) {
    uint at = min(gl_LocalInvocationIndex % kHalf + i * kHalf, brought - 1);
    uint row_of_x = Words(list).at[2 * (tile.first + at / kFixedVectors)];
    from[i] = row_of_x * blocks * kFixedVectors + at % kFixedVectors;
  }
  multiply(tile.matrix, near, from, brought, steps);
  if (kIsGated) {
    float of_gate[kEach * kEach];
    [[unroll]] for (uint n = 0; n < kEach * kEach; ++n) of_gate[n] = totals[n];
    multiply(tile.up, tile.up_first_row + near, from, brought, steps);
    [[unroll]] for (uint n = 0; n < kEach * kEach; ++n) {
      totals[n] = exact_product(exact_silu(of_gate[n]), totals[n]);
    }
  }
  write(tile, first_row);
}
