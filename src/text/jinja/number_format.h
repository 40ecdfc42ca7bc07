// Numbers as Python's two ways of formatting write them: '%5.2f' % x and '{:5.2f}'.format(x).
//
// Digits come from std::to_chars, so they are right to the last one and know no locale.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::jinja {

// More digits than any number has; keeps a template from asking for millions.
inline constexpr int64_t kPrecisionMax = 4096;

// The digits of a finite or infinite number that is not negative. type: one of e E f F g G %, or r:
// as g, but with a digit behind the point. alternate: the point stays, and g keeps its zeros.
struct RealStyle {
  char type = 'f';
  int precision = 6;
  bool alternate = false;
};
std::string real_digits(double magnitude, const RealStyle& style);

// In base 2, 8, 10 or 16, without a sign.
std::string integer_digits(uint64_t magnitude, int base);

uint64_t magnitude_of(int64_t value);

// Round to the nearest, ties to the even digit, as Python's round(value, digits) does; digits may
// be negative.
double round_to_digits(double value, int64_t digits);

}  // namespace penstock::jinja
