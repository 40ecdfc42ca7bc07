#version 460
// One primitive on many inputs: out[i] = op(a[i], b[i], c[i]), as bits. gpu/bit_probe.cc has the same
// list and compares.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "exact.glsl"
#include "numbers.glsl"
#include "fused.glsl"

layout(local_size_x = 64) in;
layout(push_constant) uniform Arguments {
  uvec2 a, b, c, result;
  uint count;
  uint op;
};

uint result_of(uint x_bits, uint y_bits, uint z_bits) {
  float x = uintBitsToFloat(x_bits), y = uintBitsToFloat(y_bits), z = uintBitsToFloat(z_bits);
  switch (op) {
    case 0: return floatBitsToUint(add(x, y));
    case 1: return floatBitsToUint(sub(x, y));
    case 2: return floatBitsToUint(mul(x, y));
    case 3: return floatBitsToUint(add(mul(x, y), z));
    case 4: return floatBitsToUint(float(int(x_bits)));
    case 5: return floatBitsToUint(exact_exp(x));
    case 6: return floatBitsToUint(exact_reciprocal(x));
    case 7: return floatBitsToUint(exact_rsqrt(x));
    case 8: return floatBitsToUint(exact_product(x, y));
    case 9: return floatBitsToUint(exact_sigmoid(x));
    case 10: return floatBitsToUint(exact_silu(x));
    case 11: return floatBitsToUint(exact_softplus(x));
    case 12: return uint(packed_dot(x_bits, y_bits));
    case 13: return floatBitsToUint(half_of(x_bits & 0xbfffu));
    case 14: return floatBitsToUint(half_of_e8m0(2 + (x_bits & 0x7fu)));
    case 15: return fused(x_bits, y_bits, z_bits);
  }
  return 0;
}

void main() {
  // A grid of two dimensions, because one reaches no more than 65,535 groups on some devices.
  uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * 64 + gl_LocalInvocationID.x;
  if (i >= count) return;
  WordsOut(result).at[i] = result_of(Words(a).at[i], Words(b).at[i], Words(c).at[i]);
}
