// x * y + z with one rounding, of the bits of floats: exact_fma() of compute/exact_math.h.
//
// A device's own fused multiply-add may be two roundings, and devices may take subnormal numbers for
// zeros, in sums and products as well. Whole numbers leave them no say: significands are multiplied and
// added as such, 64 bits of them, with the last one also set where bits behind it are.
//
// A 64-bit number is a pair: x the low word, y the high one.

uvec2 shifted_left(uvec2 a, uint by) {  // by < 64
  if (by == 0) return a;
  if (by >= 32) return uvec2(0, a.x << (by - 32));
  return uvec2(a.x << by, (a.y << by) | (a.x >> (32 - by)));
}

// What is shifted out stays in the last bit.
uvec2 shifted_right(uvec2 a, uint by) {
  if (by == 0) return a;
  if (by >= 64) return uvec2((a.x | a.y) != 0 ? 1 : 0, 0);
  uvec2 lost = shifted_left(a, 64 - by);
  uvec2 kept = by >= 32 ? uvec2(by == 32 ? a.y : a.y >> (by - 32), 0)
                        : uvec2((a.x >> by) | (a.y << (32 - by)), a.y >> by);
  if ((lost.x | lost.y) != 0) kept.x |= 1;
  return kept;
}

uvec2 sum_of(uvec2 a, uvec2 b) {
  uint carry;
  uint low = uaddCarry(a.x, b.x, carry);
  return uvec2(low, a.y + b.y + carry);
}

uvec2 difference_of(uvec2 a, uvec2 b) {  // a >= b
  uint borrow;
  uint low = usubBorrow(a.x, b.x, borrow);
  return uvec2(low, a.y - b.y - borrow);
}

bool is_less(uvec2 a, uvec2 b) {
  return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// A float is significand * 2^(exponent - 150).
uint significand_of(uint bits) {
  uint fraction = bits & 0x7fffffu;
  return (bits & 0x7f800000u) != 0 ? fraction | 0x800000u : fraction;
}
int exponent_of(uint bits) {
  return max(int((bits >> 23) & 0xffu), 1);
}
bool is_number(uint bits) {
  return (bits & 0x7f800000u) != 0x7f800000u;
}

// At least one is infinite or not a number.
uint fused_of_infinite(uint x, uint y, uint z) {
  const uint kInfinite = 0x7f800000u, kNone = 0x7fc00000u;
  uint size_x = x & 0x7fffffffu, size_y = y & 0x7fffffffu, size_z = z & 0x7fffffffu;
  if (size_x > kInfinite || size_y > kInfinite || size_z > kInfinite) return kNone;
  if (size_x != kInfinite && size_y != kInfinite) return z;
  uint product = ((x ^ y) & 0x80000000u) | kInfinite;
  bool has_zero = size_x == 0 || size_y == 0;
  return has_zero || (size_z == kInfinite && z != product) ? kNone : product;
}

// Of `number` * 2^exponent with this sign, number < 2^63 and not zero: the nearest float.
uint nearest_float(uint sign, uvec2 number, int exponent) {
  int leading = number.y != 0 ? 32 + findMSB(number.y) : findMSB(number.x);
  number = shifted_left(number, uint(62 - leading));
  int biased = leading + exponent + 127;
  if (biased >= 255) return sign | 0x7f800000u;
  if (biased < 1) {
    number = shifted_right(number, uint(1 - biased));
    biased = 1;
  }
  // 24 bits of it, from bit 39 on; the leading one counts as one of the exponent.
  uint kept = number.y >> 7;
  uint rest = number.y & 0x7fu;
  bool is_above = rest > 0x40u || (rest == 0x40u && number.x != 0);
  bool is_half = rest == 0x40u && number.x == 0;
  if (is_above || (is_half && (kept & 1) != 0)) ++kept;
  return sign | ((uint(biased - 1) << 23) + kept);
}

uint fused(uint x, uint y, uint z) {
  uint sign = (x ^ y) & 0x80000000u, z_sign = z & 0x80000000u;
  if (!is_number(x) || !is_number(y) || !is_number(z)) return fused_of_infinite(x, y, z);
  uint high, low;
  umulExtended(significand_of(x), significand_of(y), high, low);
  uint z_significand = significand_of(z);
  if ((high | low) == 0) {
    if (z_significand != 0) return z;
    return sign & z_sign;  // of two zeros
  }
  // Both below 2^62.
  uvec2 product = shifted_left(uvec2(low, high), 14);
  int exponent = exponent_of(x) + exponent_of(y) - 314;
  if (z_significand == 0) return nearest_float(sign, product, exponent);
  uvec2 addend = shifted_left(uvec2(z_significand, 0), 38);
  int z_exponent = exponent_of(z) - 188;
  if (exponent >= z_exponent) {
    addend = shifted_right(addend, uint(exponent - z_exponent));
  } else {
    product = shifted_right(product, uint(z_exponent - exponent));
    exponent = z_exponent;
  }
  if (sign == z_sign) return nearest_float(sign, sum_of(product, addend), exponent);
  if (product == addend) return 0;
  if (is_less(product, addend)) {
    return nearest_float(z_sign, difference_of(addend, product), exponent);
  }
  return nearest_float(sign, difference_of(product, addend), exponent);
}
