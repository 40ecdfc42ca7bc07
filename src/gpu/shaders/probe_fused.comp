#version 460
// What the device's own fused multiply-add, products and sums give.
// gpu/gpu_delta_net_kernel.cc compares them with the CPU's.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(local_size_x = 64) in;
layout(push_constant) uniform Arguments {
  uvec2 inputs;   // threes of floats
  uvec2 results;  // likewise: fused, the product of the first two, their sum
  uint count;
};

void main() {
  uint i = gl_GlobalInvocationID.x;
  if (i >= count) return;
  float x = Floats(inputs).at[3 * i], y = Floats(inputs).at[3 * i + 1],
        z = Floats(inputs).at[3 * i + 2];
  FloatsOut(results).at[3 * i] = fma(x, y, z);
  FloatsOut(results).at[3 * i + 1] = mul(x, y);
  FloatsOut(results).at[3 * i + 2] = add(x, y);
}
