#version 460
// Joins what attention.comp has of single segments: a group of threads for each token and head.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "exact.glsl"
#include "attention.glsl"

layout(local_size_x = 64) in;
layout(constant_id = 0) const uint kHeadDim = 256;

layout(push_constant) uniform Arguments {
  uvec2 parts;   // f32 [tokens, heads, num_segments, 4 + kHeadDim]: m, l, o
  uvec2 gates;   // f32 [tokens, heads, kHeadDim]; 0: there are none
  uvec2 result;  // likewise
  uint num_segments, first_position, heads, unused;
};

void main() {
  const uint kPart = kHeadDim + 4;
  uint row = gl_WorkGroupID.x;
  uint seen = first_position + row / heads + 1;
  uint end = (seen + kPositions - 1) / kPositions;
  for (uint d = gl_LocalInvocationIndex; d < kHeadDim; d += 64) {
    float maximum = uintBitsToFloat(kNothingSeen), sum = 0.0, so_far = 0.0;
    for (uint segment = 0; segment < end; ++segment) {
      uint at = (row * num_segments + segment) * kPart;
      Joined joined = join(maximum, sum, Floats(parts).at[at], Floats(parts).at[at + 1]);
      so_far = joined_value(so_far, Floats(parts).at[at + 4 + d], joined);
      maximum = joined.maximum;
      sum = joined.sum;
    }
    uint to = row * kHeadDim + d;
    float open = gates == uvec2(0) ? 1.0 : exact_sigmoid(Floats(gates).at[to]);
    FloatsOut(result).at[to] = finished(so_far, exact_reciprocal(sum), open);
  }
}
