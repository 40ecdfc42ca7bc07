// The functions of compute/exact_math.h: the same operations in the same order, constants by their
// bits. What they are, and in which domains they hold, is said there.

float exact_exp(float x) {
  const float kRound = 12582912.0;  // 1.5 * 2^23
  float shifted = add(mul(x, uintBitsToFloat(0x3fb8aa3bu)), kRound);
  float exponent = sub(shifted, kRound);
  float r = sub(sub(x, mul(exponent, uintBitsToFloat(0x3f317200u))),
                mul(exponent, uintBitsToFloat(0x35bfbe8eu)));
  float tail = add(mul(uintBitsToFloat(0x3ab511e8u), r), uintBitsToFloat(0x3c091d10u));
  tail = add(mul(tail, r), uintBitsToFloat(0x3d2aac79u));
  tail = add(mul(tail, r), uintBitsToFloat(0x3e2aaa49u));
  tail = add(mul(tail, r), uintBitsToFloat(0x3efffffeu));
  float mantissa = add(1.0, add(r, mul(mul(r, r), tail)));
  float power = uintBitsToFloat((floatBitsToUint(shifted) << 23) + 0x3f800000u);
  float result = mul(mantissa, power);
  return x < -87.0 ? 0.0 : result;
}

float exact_reciprocal(float d) {
  float y = uintBitsToFloat(0x7ef31200u - floatBitsToUint(d));
  for (int i = 0; i < 3; ++i) y = add(y, mul(y, sub(1.0, mul(d, y))));
  return y;
}

float exact_rsqrt(float d) {
  float half_d = mul(0.5, d);
  float y = uintBitsToFloat(0x5f3759dfu - (floatBitsToUint(d) >> 1));
  for (int i = 0; i < 3; ++i) y = add(y, mul(y, sub(0.5, mul(mul(half_d, y), y))));
  return y;
}

// Below 2^-100 in size: zero.
float exact_product(float x, float y) {
  float product = mul(x, y);
  return (floatBitsToUint(product) & 0x7fffffffu) < 0x0d800000u ? 0.0 : product;
}

float minus_size(float x) {
  return uintBitsToFloat(floatBitsToUint(x) | 0x80000000u);
}

float exact_sigmoid(float x) {
  float small = exact_exp(minus_size(x));
  return mul(x < 0.0 ? small : 1.0, exact_reciprocal(add(1.0, small)));
}

float exact_silu(float x) {
  return mul(x, exact_sigmoid(x));
}

float exact_softplus(float x) {
  float small = exact_exp(minus_size(x));
  float s = mul(small, exact_reciprocal(add(2.0, small)));
  float z = mul(s, s);
  float tail = uintBitsToFloat(0x3df8b99fu);
  tail = add(mul(tail, z), uintBitsToFloat(0x3ddb7366u));
  tail = add(mul(tail, z), uintBitsToFloat(0x3e128459u));
  tail = add(mul(tail, z), uintBitsToFloat(0x3e4ccb58u));
  tail = add(mul(tail, z), uintBitsToFloat(0x3eaaaaacu));
  float log1p = mul(2.0, add(s, mul(s, mul(z, tail))));
  if (x > 20.0) return x;
  return x > 0.0 ? add(x, log1p) : log1p;
}
