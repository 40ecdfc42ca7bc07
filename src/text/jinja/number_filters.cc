#include "text/jinja/number_filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "text/jinja/access.h"
#include "text/jinja/list_filters.h"
#include "text/jinja/number_format.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"

namespace penstock::jinja {
namespace {

// A number as Python's int() and float() read it: white space around it, underscores between
// digits.
std::optional<double> parse_float(std::string_view text) {
  std::string digits(strip(text, Side::kBoth));
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  std::string_view view = digits;
  if (view.starts_with('+')) view.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc() || end != view.data() + view.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(std::string_view text, int base) {
  std::string digits(strip(text, Side::kBoth));
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  std::string_view view = digits;
  if (view.starts_with('+')) view.remove_prefix(1);
  const std::string lowered = lower(view.substr(0, 2));
  const bool prefixed = (base == 16 && lowered == "0x") || (base == 8 && lowered == "0o") ||
                        (base == 2 && lowered == "0b");
  if (prefixed) view.remove_prefix(2);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value, base);
  if (error != std::errc() || end != view.data() + view.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> truncate(double value) {
  if (!(std::abs(value) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(value);
}

Error not_a_number(std::string_view filter, const Value& input) {
  if (input.is_undefined()) return undefined_error(input);
  return template_error(fmt::format("{} needs a number, not {}", filter, type_name(input)));
}

// round(1250, -2) is 1200: to the nearest, ties to the even digit.
Result<Value> round_integer(int64_t value, int64_t digits) {
  if (digits >= 0) return Value(value);
  if (digits < -19) return Value(int64_t{0});
  if (digits == -19) {  // the unit has no place in 64 bits, and its half is below some numbers
    if (magnitude_of(value) <= uint64_t{5'000'000'000'000'000'000}) return Value(int64_t{0});
    return template_error("the result is an integer of more than 64 bits");
  }
  uint64_t unit = 1;
  for (int64_t i = digits; i < 0; ++i) unit *= 10;
  const uint64_t magnitude = magnitude_of(value);
  uint64_t rounded = magnitude / unit;
  const uint64_t rest = magnitude % unit;
  if (rest > unit / 2 || (rest == unit / 2 && rounded % 2 == 1)) ++rounded;
  uint64_t product = 0;
  const bool overflows =
      __builtin_mul_overflow(rounded, unit, &product) || product > static_cast<uint64_t>(INT64_MAX);
  if (overflows) return template_error("the result is an integer of more than 64 bits");
  return Value(value < 0 ? -static_cast<int64_t>(product) : static_cast<int64_t>(product));
}

}  // namespace

Result<Value> filter_int(Arena&, const Value& input, const Arguments& arguments) {
  if (input.is_undefined()) return undefined_error(input);
  const Value* base_value = arguments.find(1, "base");
  const int64_t base =
      base_value != nullptr && base_value->is_integral() ? base_value->integer() : 10;
  if (base < 2 || base > 36) return template_error("int: the base must be from 2 to 36");
  std::optional<int64_t> value;
  if (input.is_integral()) value = input.integer();
  if (input.is(Kind::kFloat)) value = truncate(input.real());
  if (input.is_text()) {
    value = parse_integer(input.text().bytes, static_cast<int>(base));
    if (!value) {
      const auto real = parse_float(input.text().bytes);
      if (real) value = truncate(*real);
    }
  }
  if (value) return Value(*value);
  const Value* otherwise = arguments.find(0, "default");
  return otherwise == nullptr ? Value(int64_t{0}) : *otherwise;
}

Result<Value> filter_float(Arena&, const Value& input, const Arguments& arguments) {
  if (input.is_undefined()) return undefined_error(input);
  std::optional<double> value;
  if (input.is_number()) value = input.real();
  if (input.is_text()) value = parse_float(input.text().bytes);
  if (value) return Value(*value);
  const Value* otherwise = arguments.find(0, "default");
  return otherwise == nullptr ? Value(0.0) : *otherwise;
}

Result<Value> filter_abs(Arena& arena, const Value& input, const Arguments&) {
  if (input.is(Kind::kFloat)) return Value(std::abs(input.real()));
  if (!input.is_integral()) return not_a_number("abs", input);
  return input.integer() < 0 ? negate(arena, input) : Result<Value>(Value(input.integer()));
}

Result<Value> filter_round(Arena& arena, const Value& input, const Arguments& arguments) {
  if (!input.is_number()) return not_a_number("round", input);
  const Value* given_precision = arguments.find(0, "precision");
  const Value* given_method = arguments.find(1, "method");
  const Value precision = given_precision != nullptr ? *given_precision : Value(int64_t{0});
  if (!precision.is_integral()) return template_error("round: the precision must be an integer");
  const int64_t digits = precision.integer();
  const std::string method =
      given_method != nullptr ? PENSTOCK_TRY(python_str(*given_method)) : "common";
  if (method == "common") {
    if (input.is_integral()) return round_integer(input.integer(), digits);
    return Value(round_to_digits(input.real(), digits));
  }
  if (method != "ceil" && method != "floor") {
    return template_error("round: the method must be common, ceil or floor");
  }
  const Value unit =
      PENSTOCK_TRY(operate(arena, Operator::kPower, Value(int64_t{10}), Value(digits)));
  const Value scaled = PENSTOCK_TRY(operate(arena, Operator::kMultiply, input, unit));
  if (!std::isfinite(scaled.real())) return template_error("round: the number is too large");
  // Python's ceil gives an integer, which has no negative zero.
  const double whole =
      (method == "ceil" ? std::ceil(scaled.real()) : std::floor(scaled.real())) + 0.0;
  // Where it stays an integer, it stays exact.
  const Value rounded = scaled.is_integral() ? scaled : Value(whole);
  return operate(arena, Operator::kDivide, rounded, unit);
}

Result<Value> filter_sum(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value* attribute = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value sum = start != nullptr ? *start : Value(int64_t{0});
  if (sum.is_text()) return template_error("sum() cannot add texts; use join");
  const std::vector<Value> all = PENSTOCK_TRY(items_of(arena, input));
  for (const Value& item : all) {
    Value addend = item;
    if (attribute != nullptr && !attribute->is_none()) {
      addend = PENSTOCK_TRY(deep_attribute(arena, item, *attribute));
    }
    sum = PENSTOCK_TRY(operate(arena, Operator::kAdd, sum, addend));
  }
  return sum;
}

Result<Value> filter_file_size(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value number = PENSTOCK_TRY(filter_float(arena, input, {}));
  const bool is_number = input.is_number() || (input.is_text() && parse_float(input.text().bytes));
  if (!is_number) return not_a_number("filesizeformat", input);
  const Value* binary = arguments.find(0, "binary");
  const bool is_binary = binary != nullptr && is_true(*binary);
  const double base = is_binary ? 1024 : 1000;
  const double bytes = number.real();
  if (bytes == 1) return arena.text("1 Byte");
  if (bytes < base) return arena.text(fmt::format("{} Bytes", std::trunc(bytes) + 0.0));
  constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0;; ++i) {
    unit *= base;
    if (bytes >= unit && i + 1 < kPrefixes.size()) continue;
    const char prefix = is_binary && i == 0 ? 'K' : kPrefixes[i];
    return arena.text(real_digits(base * bytes / unit, {'f', 1, false}) + " " + prefix +
                      (is_binary ? "iB" : "B"));
  }
}

}  // namespace penstock::jinja
