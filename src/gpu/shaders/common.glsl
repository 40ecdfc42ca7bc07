// What every shader begins with: how floats are rounded, how memory is addressed.
//
// All arithmetic of floats goes through add(), sub() and mul(): one rounding each, to the nearest,
// never fused or reordered. Nothing else may compute with floats: gpu/shader_rules_test.cc reads the
// SPIR-V and holds us to it.
#extension GL_EXT_spirv_intrinsics : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require

// RoundingModeRTE and SignedZeroInfNanPreserve, for 32 bits.
spirv_execution_mode(extensions = ["SPV_KHR_float_controls"], capabilities = [4467], 4462, 32);
spirv_execution_mode(extensions = ["SPV_KHR_float_controls"], capabilities = [4466], 4461, 32);

layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Words {
  uint at[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Words4 {
  uvec4 at[];
};
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer WordsOut {
  uint at[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) writeonly buffer Words4Out {
  uvec4 at[];
};
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Floats {
  float at[];
};
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer FloatsOut {
  float at[];
};

float add(float x, float y) {
  precise float sum = x + y;
  return sum;
}
float sub(float x, float y) {
  precise float difference = x - y;
  return difference;
}
float mul(float x, float y) {
  precise float product = x * y;
  return product;
}

// The sum of the products of four signed bytes each.
#ifdef PENSTOCK_NO_PACKED_DOTS
// For what has no word for them, such as Debian's translator to Metal (tests/metal_test.py).
int packed_dot(uint x, uint y) {
  int sum = 0;
  for (int first = 0; first < 32; first += 8) {
    sum += bitfieldExtract(int(x), first, 8) * bitfieldExtract(int(y), first, 8);
  }
  return sum;
}
#else
// OpSDot.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int packed_dot_of(int x, int y, spirv_literal int four_bytes);

int packed_dot(uint x, uint y) {
  return packed_dot_of(int(x), int(y), 0);
}
#endif
