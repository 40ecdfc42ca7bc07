// Numbers of the delta-net's kernels, which may be subnormal and whose sums are fused: devices do with these
// as they like. Of whole numbers (fused.glsl) all of it is right everywhere, and slow. So with kSums kOwn a
// device computes in its own way, where that was seen to be right for numbers that are not subnormal
// (gpu/gpu_delta_net_kernel.h); what may have gone through a subnormal one is doubted, and done once more of
// whole numbers.
//
// Needs: kSums, a constant.

// kPretended: as a device that loses subnormal numbers, for tests.
const uint kWhole = 0, kOwn = 1, kPretended = 2;

// What is written here and read again by the same thread.
layout(buffer_reference, std430, buffer_reference_align = 4) buffer State {
  float at[];
};

uint size_of(float x) {
  return floatBitsToUint(x) & 0x7fffffffu;
}
bool is_tiny(float x) {  // subnormal
  return size_of(x) - 1 < 0x7fffffu;
}
float flushed(float x) {
  return is_tiny(x) ? uintBitsToFloat(floatBitsToUint(x) & 0x80000000u) : x;
}

float whole_fused(float x, float y, float sum) {
  return uintBitsToFloat(fused(floatBitsToUint(x), floatBitsToUint(y), floatBitsToUint(sum)));
}
float whole_mul(float x, float y) {
  uint zero = (floatBitsToUint(x) ^ floatBitsToUint(y)) & 0x80000000u;
  return whole_fused(x, y, uintBitsToFloat(zero));
}
float whole_add(float x, float y) {
  return whole_fused(x, 1.0, y);
}

// As a device does it.
float quick_fused(float x, float y, float sum) {
  if (kSums == kOwn) return fma(x, y, sum);
  return flushed(whole_fused(flushed(x), flushed(y), flushed(sum)));
}
float quick_mul(float x, float y) {
  if (kSums == kOwn) return mul(x, y);
  return flushed(whole_mul(flushed(x), flushed(y)));
}
float quick_add(float x, float y) {
  if (kSums == kOwn) return add(x, y);
  return flushed(whole_add(flushed(x), flushed(y)));
}

// What speaks against a number that is computed as a device does it: below kLeast, it may be wrong. No
// branches: there are many of these.
const uint kLeast = 0x800000u, kNothing = 0xffffffffu;

// Subnormal, which a device takes for zero. (So is the smallest that is not, which does no harm.)
uint doubt_of(float x) {
  return size_of(x) - 1;
}
// Zero, or what a device may have made of a subnormal number, of a product or of a sum with one.
uint doubt_of_product(float x, float y, float result) {
  return min(size_of(x), size_of(y)) == 0 ? kNothing : size_of(result);
}
uint doubt_of_sum(float x, float y, float result) {
  return size_of(x) == size_of(y) ? kNothing : size_of(result);
}

// Of all that this thread has made.
uint doubt = kNothing;

// With one rounding, whatever their size.
float careful_mul(float x, float y) {
  if (kSums == kWhole) return whole_mul(x, y);
  float result = quick_mul(x, y);
  doubt = min(doubt, min(min(doubt_of(x), doubt_of(y)), doubt_of_product(x, y, result)));
  return result;
}
float careful_add(float x, float y) {
  if (kSums == kWhole) return whole_add(x, y);
  float result = quick_add(x, y);
  doubt = min(doubt, min(min(doubt_of(x), doubt_of(y)), doubt_of_sum(x, y, result)));
  return result;
}
float careful_sub(float x, float y) {
  return careful_add(x, uintBitsToFloat(floatBitsToUint(y) ^ 0x80000000u));
}
