// Exponential, logarithm, sine and cosine in f64 that have the same bits on every processor.
//
// Mathematical libraries differ in the last place, and a table that was made with one would give
// other logits than the same table made with another. These are for tables that are made once, on
// the host: additions, multiplications and divisions of f64, one rounding each, in the order
// written. Each is off by less than 4e-15 of its result (sine and cosine: of 1), so its f32 is the
// right one but for one case in a million.
//
// Source  Taylor's series after the usual reductions; pi / 2 in parts of 22 bits
#pragma once

namespace penstock {

double exact_exp64(double x);  // 0 below -700, infinite above 700
double exact_log64(double x);  // not of subnormal numbers

// base^exponent; base > 0
double exact_power64(double base, double exponent);

// |angle| <= 2^31
struct SineCosine {
  double sine, cosine;
};
SineCosine exact_sine_cosine64(double angle);

}  // namespace penstock
