// Numbers of files: the low 16 or 8 bits of a word as floats. By integers, and one exact product, so
// that no device has a say in it, also where it takes subnormal numbers for zeros.

// f16_to_f32().
float half_of(uint bits) {
  uint size = (bits & 0x7fffu) << 13;
  uint number = size + 0x38000000u;  // 2^112 times as large
  if (size >= 0x0f800000u) number = size | 0x7f800000u;
  // Below 2^-14 a whole number of 2^-24.
  if (size < 0x00800000u) {
    number = floatBitsToUint(mul(float(int(bits & 0x3ffu)), uintBitsToFloat(0x33800000u)));
  }
  return uintBitsToFloat(number | ((bits & 0x8000u) << 16));
}

// half_of_e8m0(): 2^(e - 128). Where that is subnormal there must be zeros to multiply by it
// (gpu/gpu_coding.h).
float half_of_e8m0(uint e) {
  return uintBitsToFloat(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}
