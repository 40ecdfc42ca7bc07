#include "text/jinja/number_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

namespace penstock::jinja {
namespace {

std::string to_text(double value, std::chars_format format, int precision) {
  // A double has at most 309 digits before the point.
  std::vector<char> buffer(static_cast<size_t>(precision) + 400);
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format, precision);
  return {buffer.data(), end.ptr};
}

// "1.500e+07" is "1.5e+07": as %g drops zeros.
void drop_zeros(std::string& digits) {
  const size_t exponent = std::min(digits.find('e'), digits.size());
  std::string mantissa = digits.substr(0, exponent);
  if (mantissa.find('.') == std::string::npos) return;
  mantissa.erase(mantissa.find_last_not_of('0') + 1);
  if (mantissa.ends_with('.')) mantissa.pop_back();
  digits = mantissa + digits.substr(exponent);
}

void add_point(std::string& digits) {
  const size_t exponent = std::min(digits.find('e'), digits.size());
  if (digits.find('.') == std::string::npos) digits.insert(exponent, 1, '.');
}

// Six significant digits, say; with an exponent if it is below -4 or not below the precision.
std::string general_digits(double magnitude, const RealStyle& style) {
  const int significant = std::max(style.precision, 1);
  std::string digits = to_text(magnitude, std::chars_format::scientific, significant - 1);
  int exponent = 0;
  const char* begin = digits.data() + digits.find('e') + 1;
  std::from_chars(*begin == '+' ? begin + 1 : begin, digits.data() + digits.size(), exponent);
  const bool shows_point = style.type == 'r';
  if (exponent >= -4 && exponent < significant - (shows_point ? 1 : 0)) {
    digits = to_text(magnitude, std::chars_format::fixed, significant - 1 - exponent);
    if (!style.alternate) drop_zeros(digits);
    if (shows_point && digits.find('.') == std::string::npos) digits += ".0";
    return digits;
  }
  if (!style.alternate) drop_zeros(digits);
  return digits;
}

}  // namespace

std::string real_digits(double magnitude, const RealStyle& style) {
  const bool is_upper = style.type == 'E' || style.type == 'F' || style.type == 'G';
  std::string digits;
  if (std::isnan(magnitude)) {
    digits = "nan";
  } else if (std::isinf(magnitude)) {
    digits = "inf";
  } else {
    switch (style.type) {
      case 'e':
      case 'E': digits = to_text(magnitude, std::chars_format::scientific, style.precision); break;
      case 'g':
      case 'G':
      case 'r': digits = general_digits(magnitude, style); break;
      case '%':
        digits = real_digits(magnitude * 100, {'f', style.precision, style.alternate});
        break;
      default: digits = to_text(magnitude, std::chars_format::fixed, style.precision);
    }
    if (style.alternate) add_point(digits);
  }
  if (is_upper) {
    for (char& c : digits) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return digits;
}

std::string integer_digits(uint64_t magnitude, int base) {
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), magnitude, base);
  return {buffer, end.ptr};
}

uint64_t magnitude_of(int64_t value) {
  return value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

double round_to_digits(double value, int64_t digits) {
  if (!std::isfinite(value) || value == 0 || digits > 400) return value;
  const double zero = std::copysign(0.0, value);
  if (digits < -400) return zero;
  std::string text;
  if (digits >= 0) {
    text = to_text(std::abs(value), std::chars_format::fixed, static_cast<int>(digits));
  } else {
    // 1234.5 to -2 digits keeps 2 of the 4 before the point: 1.2e+03.
    const std::string whole = to_text(std::trunc(std::abs(value)), std::chars_format::fixed, 0);
    const int64_t before_point = std::abs(value) < 1 ? 0 : static_cast<int64_t>(whole.size());
    const double unit = std::pow(10.0, static_cast<double>(-digits));
    const int64_t kept = before_point + digits;
    if (kept < 0) return zero;
    if (kept == 0) return std::copysign(std::abs(value) > unit / 2 ? unit : 0.0, value);
    text = to_text(std::abs(value), std::chars_format::scientific, static_cast<int>(kept - 1));
  }
  double rounded = 0;
  std::from_chars(text.data(), text.data() + text.size(), rounded);
  return std::copysign(rounded, value);
}

}  // namespace penstock::jinja
