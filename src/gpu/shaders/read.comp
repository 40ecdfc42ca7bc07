#version 460
// Reads memory as fast as it comes: for the rate of a device. Words of 16 bytes, mixed so that nothing
// can be left out.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(local_size_x = 256) in;
layout(push_constant) uniform Arguments {
  uvec2 from;
  uvec2 result;   // one word for each thread
  uint vectors;   // to read, by all threads
};

void main() {
  uint threads = gl_NumWorkGroups.x * 256;
  uvec4 mixed = uvec4(0);
  for (uint i = gl_GlobalInvocationID.x; i < vectors; i += threads) {
    mixed ^= Words4(from).at[i];
  }
  WordsOut(result).at[gl_GlobalInvocationID.x] = mixed.x ^ mixed.y ^ mixed.z ^ mixed.w;
}
