#version 460
// Attention of query rows over the segments of one kv head's cache, as compute/cpu/attention.h has it.
//
// A group of threads does 64 rows, a row being a token and one of the heads that share the kv head. For each
// segment of 504 positions: scores, 64 by 64 of them at a time, each a chain of fused sums over the components;
// then each row's weights and their sum; then values mixed with these, each a chain over positions in the
// order 0, 63, 126, ..., 1, 64, ...; then both are joined to what came before. With `parts` a group does one
// segment, and another kernel joins them (attention_join.comp).
//
// Fused sums are the device's own where they were seen to be right. No number that is used is then subnormal
// as long as queries, keys and values are zeros or of at least kLeastSize and finite, since weights are as well;
// others set a word, and the processors do the call.
//
// A row that sees nothing of a segment joins it with a weight of 0, where the processors leave it out. What that may
// flush, values below 2^-100, is flushed by them at the end (finished()).
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "common.glsl"
#include "exact.glsl"
#include "fused.glsl"
#include "attention.glsl"

layout(local_size_x = 256) in;
layout(constant_id = 0) const uint kHeadDim = 256;
layout(constant_id = 1) const uint kShare = 8;  // heads of a kv head
layout(constant_id = 2) const uint kSums = 0;
#include "delta_numbers.glsl"

layout(push_constant) uniform Arguments {
  uvec2 queries;   // f32 [tokens, heads, kHeadDim], rotated and scaled
  uvec2 gates;     // likewise; 0: there are none
  uvec2 segments;  // [.., 2] addresses: keys and values of kv head 0, [504, kHeadDim] each
  uvec2 scores;    // f32 [groups, 504, 64]: scratch
  uvec2 result;    // as queries
  uvec2 parts;     // f32 [tokens, heads, num_segments, 4 + kHeadDim]: m, l, o; 0: the result is wanted
  uvec2 doubts;    // u32
  uint tokens, first_position, kv_heads, first_segment, num_segments, num_tiles;
};

layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Addresses {
  uvec2 at[];
};
// Written by some threads of a group and read by others.
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer Scores {
  float at[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer Scores4 {
  vec4 at[];
};

const uint kStream = 63, kStreams = 8;
const uint kRows = 64;
const uint kDims = 16, kPad = 17;    // components of a step of scores; vectors of 64 rows and one
const uint kVectors = kHeadDim / 4;  // of a row
const uint kHalves = (kHeadDim + 127) / 128;
const float kSmallestDifference = -27.0;
const uint kLeastSize = 0x2b800000u, kInfinite = 0x7f800000u;  // 2^-40

shared vec4 pool[kStreams * 64 + kStreams * 16];
shared float of_rows[4 * kRows];
shared float old_parts[kRows], new_parts[kRows];

float mixed[64], running[64];  // 8 rows by 8 components
bool has_doubt = false;

uint index() {
  return gl_LocalInvocationIndex;
}
uint heads() {
  return kv_heads * kShare;
}
// Of a row of this kv head: where it begins.
uint place_of(uint row, uint kv_head) {
  return (row / kShare * heads() + kv_head * kShare + row % kShare) * kHeadDim;
}

void look_at(uvec4 bits) {
  [[unroll]] for (uint i = 0; i < 4; ++i) {
    uint size = bits[i] & 0x7fffffffu;
    has_doubt = has_doubt || size - 1 < kLeastSize - 1 || size >= kInfinite;
  }
}

void put_turned(uint to, uint n, uvec4 bits) {
  [[unroll]] for (uint i = 0; i < 4; ++i) {
    pool[to + (n % 4 * 4 + i) * kPad + n / 16][n / 4 % 4] = uintBitsToFloat(bits[i]);
  }
}

// Scores of 64 positions from `first` on.
void score(uint first, uint positions, uvec2 keys, uint first_row, uint count, uint kv_head,
           uint scratch) {
  float sums[16];
  [[unroll]] for (uint n = 0; n < 16; ++n) sums[n] = 0.0;
  uint x = index() % 16, y = index() / 16;
  uint row = min(first_row + index() / 4, first_row + count - 1);
  uint position = min(first + index() / 4, positions - 1);
  uint from = place_of(row, kv_head) / 4 + index() % 4;
  uint key = position * kVectors + index() % 4;
  for (uint dim = 0; dim < kVectors; dim += 4) {
    bool is_there = dim + index() % 4 < kVectors;
    uvec4 of_query = is_there ? Words4(queries).at[from + dim] : uvec4(0);
    uvec4 of_key = is_there ? Words4(keys).at[key + dim] : uvec4(0);
    look_at(of_query);
    look_at(of_key);
    barrier();
    put_turned(0, index(), of_query);
    put_turned(kDims * kPad, index(), of_key);
    barrier();
    uint steps = min(kDims, kHeadDim - dim * 4);
    [[dont_unroll]] for (uint d = 0; d < steps; ++d) {
      vec4 q = pool[d * kPad + y], k = pool[(kDims + d) * kPad + x];
      [[unroll]] for (uint i = 0; i < 4; ++i) {
        [[unroll]] for (uint j = 0; j < 4; ++j) {
          sums[j * 4 + i] = quick_fused(q[i], k[j], sums[j * 4 + i]);
        }
      }
    }
  }
  [[unroll]] for (uint j = 0; j < 4; ++j) {
    uint p = first + x * 4 + j;
    vec4 of_rows4 = vec4(sums[j * 4], sums[j * 4 + 1], sums[j * 4 + 2], sums[j * 4 + 3]);
    if (p < positions) Scores4(scores).at[(scratch + p * kRows) / 4 + y] = of_rows4;
  }
}

float weight_of(float difference) {
  return difference < kSmallestDifference ? 0.0 : exact_exp(difference);
}

// Scores become weights; of the row index() % 64: the largest score and the sum of its weights.
vec2 weigh(uint positions, uint limit, uint scratch) {
  uint row = index() % kRows, part = index() / kRows;
  float largest = uintBitsToFloat(kNothingSeen);
  for (uint p = part; p < limit; p += 4) {
    float value = Scores(scores).at[scratch + p * kRows + row];
    has_doubt = has_doubt || size_of(value) >= kInfinite;
    largest = value > largest ? value : largest;
  }
  of_rows[index()] = largest;
  barrier();
  [[unroll]] for (uint i = 0; i < 4; ++i) {
    float other = of_rows[i * kRows + row];
    largest = other > largest ? other : largest;
  }
  for (uint p = part; p < positions; p += 4) {
    uint at = scratch + p * kRows + row;
    Scores(scores).at[at] = p < limit ? weight_of(sub(Scores(scores).at[at], largest)) : 0.0;
  }
  memoryBarrierBuffer();
  barrier();
  float sum = 0.0;
  if (part == 0) {
    for (uint p = 0; p < positions; ++p) sum = add(sum, Scores(scores).at[scratch + p * kRows + row]);
  }
  return vec2(largest, sum);
}

// mixed = the values of the segment by their weights.
void mix(uint positions, uvec2 values, uint scratch) {
  uint x = index() % 32, y = index() / 32;
  [[unroll]] for (uint n = 0; n < 64; ++n) mixed[n] = 0.0;
  for (uint first = 0; first < min(kStream, positions); ++first) {
    uint count = (positions - first + kStream - 1) / kStream;
    barrier();
    if (index() < count * 16) {
      uint p = first + index() / 16 * kStream;
      pool[kStreams * 64 + index()] = Scores4(scores).at[(scratch + p * kRows) / 4 + index() % 16];
    }
    for (uint i = index(); i < count * kVectors; i += 256) {
      uint p = first + i / kVectors * kStream;
      uvec4 bits = Words4(values).at[p * kVectors + i % kVectors];
      look_at(bits);
      pool[i / kVectors * 64 + i % kVectors] = uintBitsToFloat(bits);
    }
    barrier();
    for (uint k = 0; k < count; ++k) {
      [[unroll]] for (uint half_of = 0; half_of < kHalves; ++half_of) {
        vec4 value = pool[k * 64 + half_of * 32 + x];
        [[unroll]] for (uint i = 0; i < 2; ++i) {
          vec4 weight = pool[kStreams * 64 + k * 16 + y * 2 + i];
          [[unroll]] for (uint r = 0; r < 4; ++r) {
            [[unroll]] for (uint c = 0; c < 4; ++c) {
              uint n = (i * 4 + r) * 8 + half_of * 4 + c;
              mixed[n] = quick_fused(value[c], weight[r], mixed[n]);
            }
          }
        }
      }
    }
  }
}

void put_parts(uint segment, uint first_row, uint count, uint kv_head, vec2 of_row) {
  const uint kPart = kHeadDim + 4;
  if (index() < count) {
    uint at = place_of(first_row + index(), kv_head) / kHeadDim;
    at = (at * num_segments + segment) * kPart;
    FloatsOut(parts).at[at] = of_row.x;
    FloatsOut(parts).at[at + 1] = of_row.y;
  }
  [[unroll]] for (uint r = 0; r < 8; ++r) {
    uint row = index() / 32 * 8 + r;
    if (row >= count) continue;
    uint at = place_of(first_row + row, kv_head) / kHeadDim;
    at = (at * num_segments + segment) * kPart + 4;
    [[unroll]] for (uint n = 0; n < 4 * kHalves; ++n) {
      uint d = n / 4 * 128 + index() % 32 * 4 + n % 4;
      if (d < kHeadDim) FloatsOut(parts).at[at + d] = mixed[r * 8 + n];
    }
  }
}

void put_result(uint first_row, uint count, uint kv_head) {
  [[unroll]] for (uint r = 0; r < 8; ++r) {
    uint row = index() / 32 * 8 + r;
    if (row >= count) continue;
    uint at = place_of(first_row + row, kv_head);
    [[unroll]] for (uint n = 0; n < 4 * kHalves; ++n) {
      uint d = n / 4 * 128 + index() % 32 * 4 + n % 4;
      if (d >= kHeadDim) continue;
      float open = gates == uvec2(0) ? 1.0 : exact_sigmoid(Floats(gates).at[at + d]);
      FloatsOut(result).at[at + d] = finished(running[r * 8 + n], new_parts[row], open);
    }
  }
}

void main() {
  uint tile = gl_WorkGroupID.x % num_tiles, kv_head = gl_WorkGroupID.x / num_tiles;
  uint first_row = tile * kRows;
  uint count = min(kRows, tokens * kShare - first_row);
  uint scratch =
      (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * kPositions * kRows;
  uint seen = first_position + (first_row + count - 1) / kShare + 1;  // by the last row
  uint mine = first_position + (first_row + min(index() % kRows, count - 1)) / kShare + 1;
  bool in_parts = parts != uvec2(0);
  uint begin = in_parts ? first_segment + gl_WorkGroupID.y : 0;
  uint end = in_parts ? begin + 1 : (seen + kPositions - 1) / kPositions;
  float maximum = uintBitsToFloat(kNothingSeen), sum = 0.0;
  [[unroll]] for (uint n = 0; n < 64; ++n) running[n] = 0.0;
  for (uint segment = begin; segment < end; ++segment) {
    uint start = segment * kPositions;
    if (start >= seen) break;
    uint positions = min(seen - start, kPositions);
    uint limit = mine > start ? min(mine - start, positions) : 0;
    uvec2 keys = Addresses(segments).at[segment * 2];
    uvec2 values = Addresses(segments).at[segment * 2 + 1];
    uint skipped = kv_head * kPositions * kHeadDim * 4, carry;
    keys.x = uaddCarry(keys.x, skipped, carry);
    keys.y += carry;
    values.x = uaddCarry(values.x, skipped, carry);
    values.y += carry;
    for (uint first = 0; first < positions; first += 64) {
      score(first, positions, keys, first_row, count, kv_head, scratch);
    }
    memoryBarrierBuffer();
    barrier();
    vec2 of_row = weigh(positions, limit, scratch);
    mix(positions, values, scratch);
    if (in_parts) {
      put_parts(segment, first_row, count, kv_head, of_row);
      break;
    }
    Joined joined = join(maximum, sum, of_row.x, of_row.y);
    barrier();
    if (index() < kRows) {
      maximum = joined.maximum;
      sum = joined.sum;
      old_parts[index()] = joined.old_part;
      new_parts[index()] = joined.new_part;
    }
    barrier();
    [[unroll]] for (uint n = 0; n < 64; ++n) {
      uint row = index() / 32 * 8 + n / 8;
      joined.old_part = old_parts[row];
      joined.new_part = new_parts[row];
      running[n] = joined_value(running[n], mixed[n], joined);
    }
  }
  if (!in_parts) {
    barrier();
    if (index() < kRows) new_parts[index()] = exact_reciprocal(sum);
    barrier();
    put_result(first_row, count, kv_head);
  }
  if (has_doubt) WordsOut(doubts).at[0] = 1;
}
