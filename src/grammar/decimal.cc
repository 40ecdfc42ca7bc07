#include "grammar/decimal.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

namespace penstock {
namespace {

constexpr int kExponentMax = 400;
constexpr size_t kDigitsMax = 40;

ExpressionId digits(GrammarSource& source, char first, char last) {
  return source.chars({{static_cast<char32_t>(first), static_cast<char32_t>(last)}});
}

ExpressionId any_digits(GrammarSource& source) {
  return source.repeat(digits(source, '0', '9'), 0, kUnlimited);
}

bool is_all(std::string_view text, char c) {
  return text.find_first_not_of(c) == std::string_view::npos;
}

// Texts of as many digits as both have, from a to b.
ExpressionId same_length(GrammarSource& source, std::string_view a, std::string_view b) {
  const auto count = static_cast<uint32_t>(a.size());
  if (count == 0) return source.empty();
  if (is_all(a, '0') && is_all(b, '9')) {
    return source.repeat(digits(source, '0', '9'), count, count);
  }
  const std::string_view a_rest = a.substr(1);
  const std::string_view b_rest = b.substr(1);
  if (a[0] == b[0]) {
    return source.sequence({source.bytes(a.substr(0, 1)), same_length(source, a_rest, b_rest)});
  }
  const std::string nines(count - 1, '9');
  const std::string zeros(count - 1, '0');
  std::vector<ExpressionId> choices;
  choices.push_back(
      source.sequence({source.bytes(a.substr(0, 1)), same_length(source, a_rest, nines)}));
  if (a[0] + 1 < b[0]) {
    choices.push_back(
        source.sequence({digits(source, static_cast<char>(a[0] + 1), static_cast<char>(b[0] - 1)),
                         source.repeat(digits(source, '0', '9'), count - 1, count - 1)}));
  }
  choices.push_back(
      source.sequence({source.bytes(b.substr(0, 1)), same_length(source, zeros, b_rest)}));
  return source.choice(std::move(choices));
}

// Whole numbers without sign.
ExpressionId magnitudes(GrammarSource& source, const std::string& low, const std::string& high) {
  std::vector<ExpressionId> choices;
  for (size_t length = low.size(); length <= high.size(); ++length) {
    const std::string first = length == low.size() ? low : "1" + std::string(length - 1, '0');
    const std::string last = length == high.size() ? high : std::string(length, '9');
    if (first <= last) choices.push_back(same_length(source, first, last));
  }
  return source.choice(std::move(choices));
}

int compare_digits(const std::string& a, const std::string& b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return a.compare(b) < 0 ? -1 : a == b ? 0 : 1;
}

int compare_magnitudes(const Decimal& a, const Decimal& b) {
  const int whole = compare_digits(a.whole, b.whole);
  if (whole != 0) return whole;
  return a.fraction < b.fraction ? -1 : a.fraction == b.fraction ? 0 : 1;
}

std::string plus_one(std::string digits_text) {
  size_t i = digits_text.size();
  while (i > 0 && digits_text[i - 1] == '9') digits_text[--i] = '0';
  if (i == 0) return "1" + digits_text;
  ++digits_text[i - 1];
  return digits_text;
}

std::string minus_one(std::string digits_text) {  // of at least 1
  size_t i = digits_text.size();
  while (digits_text[i - 1] == '0') digits_text[--i] = '9';
  --digits_text[i - 1];
  const size_t lead = digits_text.find_first_not_of('0');
  return lead == std::string::npos ? "0" : digits_text.substr(lead);
}

// Digits after the point, from place i on, that make at least (or more than) `limit`.
ExpressionId digits_from(GrammarSource& source, std::string_view limit, bool is_exclusive) {
  if (limit.empty()) {
    if (!is_exclusive) return any_digits(source);
    return source.sequence({source.repeat(source.bytes("0"), 0, kUnlimited),
                            digits(source, '1', '9'), any_digits(source)});
  }
  std::vector<ExpressionId> choices;
  if (limit[0] < '9') {
    choices.push_back(source.sequence(
        {digits(source, static_cast<char>(limit[0] + 1), '9'), any_digits(source)}));
  }
  choices.push_back(source.sequence(
      {source.bytes(limit.substr(0, 1)), digits_from(source, limit.substr(1), is_exclusive)}));
  if (!is_exclusive && is_all(limit, '0')) choices.push_back(source.empty());
  return source.choice(std::move(choices));
}

// The same for at most (or less than).
ExpressionId digits_to(GrammarSource& source, std::string_view limit, bool is_exclusive) {
  if (limit.empty()) {
    return is_exclusive ? source.choice({}) : source.repeat(source.bytes("0"), 0, kUnlimited);
  }
  std::vector<ExpressionId> choices;
  if (limit[0] > '0') {
    choices.push_back(source.sequence(
        {digits(source, '0', static_cast<char>(limit[0] - 1)), any_digits(source)}));
  }
  choices.push_back(source.sequence(
      {source.bytes(limit.substr(0, 1)), digits_to(source, limit.substr(1), is_exclusive)}));
  if (!is_exclusive || !is_all(limit, '0')) choices.push_back(source.empty());
  return source.choice(std::move(choices));
}

// Both limits, of the same number of digits, low <= high.
ExpressionId digits_in(GrammarSource& source, std::string_view low, bool low_exclusive,
                       std::string_view high, bool high_exclusive) {
  if (low.empty()) {
    if (low_exclusive || high_exclusive) return source.choice({});
    return source.repeat(source.bytes("0"), 0, kUnlimited);
  }
  std::vector<ExpressionId> choices;
  if (low[0] == high[0]) {
    choices.push_back(source.sequence(
        {source.bytes(low.substr(0, 1)),
         digits_in(source, low.substr(1), low_exclusive, high.substr(1), high_exclusive)}));
  } else {
    choices.push_back(source.sequence(
        {source.bytes(low.substr(0, 1)), digits_from(source, low.substr(1), low_exclusive)}));
    if (low[0] + 1 < high[0]) {
      choices.push_back(source.sequence(
          {digits(source, static_cast<char>(low[0] + 1), static_cast<char>(high[0] - 1)),
           any_digits(source)}));
    }
    choices.push_back(source.sequence(
        {source.bytes(high.substr(0, 1)), digits_to(source, high.substr(1), high_exclusive)}));
  }
  const bool zero_is_low = !low_exclusive && is_all(low, '0');
  const bool zero_is_high = !high_exclusive || !is_all(high, '0');
  if (zero_is_low && zero_is_high) choices.push_back(source.empty());
  return source.choice(std::move(choices));
}

// A point and digits. A point needs one digit at least; without one the number is whole.
ExpressionId fraction(GrammarSource& source, ExpressionId digits_text, bool may_be_whole) {
  const ExpressionId one_or_more = source.other_than(digits_text, source.empty());
  const ExpressionId pointed = source.sequence({source.bytes("."), one_or_more});
  return may_be_whole ? source.optional(pointed) : pointed;
}

struct Magnitude {
  std::string whole;
  std::string fraction;
  bool is_exclusive = false;
};

// Numbers without sign from low to high.
ExpressionId magnitudes_between(GrammarSource& source, Magnitude low, Magnitude high) {
  std::vector<ExpressionId> choices;
  const bool low_whole = low.fraction.empty() && !low.is_exclusive;
  const bool high_whole = !high.fraction.empty() || !high.is_exclusive;
  if (low.whole == high.whole) {
    const size_t places = std::max(low.fraction.size(), high.fraction.size());
    low.fraction.resize(places, '0');
    high.fraction.resize(places, '0');
    const ExpressionId inside =
        digits_in(source, low.fraction, low.is_exclusive, high.fraction, high.is_exclusive);
    return source.sequence(
        {source.bytes(low.whole), fraction(source, inside, low_whole && high_whole)});
  }
  choices.push_back(source.sequence(
      {source.bytes(low.whole),
       fraction(source, digits_from(source, low.fraction, low.is_exclusive), low_whole)}));
  choices.push_back(source.sequence(
      {source.bytes(high.whole),
       fraction(source, digits_to(source, high.fraction, high.is_exclusive), high_whole)}));
  const std::string first = plus_one(low.whole);
  if (compare_digits(first, high.whole) < 0) {
    choices.push_back(source.sequence({magnitudes(source, first, minus_one(high.whole)),
                                       fraction(source, any_digits(source), true)}));
  }
  return source.choice(std::move(choices));
}

}  // namespace

std::optional<Decimal> Decimal::parse(std::string_view text) {
  Decimal number;
  if (text.starts_with('-')) {
    number.is_negative = true;
    text.remove_prefix(1);
  }
  int exponent = 0;
  const size_t e = text.find_first_of("eE");
  if (e != std::string_view::npos) {
    std::string_view power = text.substr(e + 1);
    if (power.starts_with('+')) power.remove_prefix(1);
    const auto parsed = std::from_chars(power.data(), power.data() + power.size(), exponent);
    if (parsed.ec != std::errc() || std::abs(exponent) > kExponentMax) return std::nullopt;
    text = text.substr(0, e);
  }
  const size_t point = text.find('.');
  std::string whole(text.substr(0, point));
  std::string fraction(point == std::string_view::npos ? "" : text.substr(point + 1));
  for (; exponent > 0; --exponent) {
    whole += fraction.empty() ? '0' : fraction[0];
    if (!fraction.empty()) fraction.erase(0, 1);
  }
  for (; exponent < 0; ++exponent) {
    fraction.insert(0, 1, whole.empty() ? '0' : whole.back());
    if (!whole.empty()) whole.pop_back();
  }
  whole.erase(0, std::min(whole.find_first_not_of('0'), whole.size()));
  number.whole = whole.empty() ? "0" : whole;
  fraction.erase(fraction.find_last_not_of('0') + 1);
  number.fraction = fraction;
  if (number.is_zero()) number.is_negative = false;
  return number;
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.is_negative != b.is_negative) return a.is_negative ? -1 : 1;
  const int magnitude = compare_magnitudes(a, b);
  return a.is_negative ? -magnitude : magnitude;
}

Decimal least_integer(const DecimalLimit& limit) {
  Decimal whole{.is_negative = limit.value.is_negative, .whole = limit.value.whole, .fraction = ""};
  const bool is_above = !limit.value.is_negative && !limit.value.fraction.empty();
  const bool is_equal = limit.value.fraction.empty() && limit.is_exclusive;
  if (is_above || (is_equal && !whole.is_negative)) {
    whole.whole = plus_one(whole.whole);
  } else if (is_equal) {
    whole.whole = minus_one(whole.whole);
  }
  if (whole.is_zero()) whole.is_negative = false;
  return whole;
}

Decimal greatest_integer(const DecimalLimit& limit) {
  DecimalLimit mirrored = limit;
  mirrored.value.is_negative = !limit.value.is_negative && !limit.value.is_zero();
  Decimal whole = least_integer(mirrored);
  whole.is_negative = !whole.is_negative && !whole.is_zero();
  return whole;
}

ExpressionId integers_between(GrammarSource& source, const Decimal& low, const Decimal& high) {
  if (compare(low, high) > 0) return source.choice({});
  std::vector<ExpressionId> choices;
  if (low.is_negative) {
    const std::string nearest = high.is_negative ? high.whole : "1";
    choices.push_back(source.sequence({source.bytes("-"), magnitudes(source, nearest, low.whole)}));
  }
  if (!high.is_negative) {
    choices.push_back(magnitudes(source, low.is_negative ? "0" : low.whole, high.whole));
  }
  return source.choice(std::move(choices));
}

ExpressionId numbers_between(GrammarSource& source, const std::optional<DecimalLimit>& low,
                             const std::optional<DecimalLimit>& high) {
  const std::string far(kDigitsMax, '9');
  DecimalLimit least{.value = {.is_negative = true, .whole = far, .fraction = ""}};
  DecimalLimit most{.value = {.is_negative = false, .whole = far, .fraction = ""}};
  if (low) least = *low;
  if (high) most = *high;
  const int order = compare(least.value, most.value);
  if (order > 0 || (order == 0 && (least.is_exclusive || most.is_exclusive))) {
    return source.choice({});
  }
  const auto magnitude = [](const DecimalLimit& limit) {
    return Magnitude{limit.value.whole, limit.value.fraction, limit.is_exclusive};
  };
  const Magnitude zero{"0", "", false};
  std::vector<ExpressionId> choices;
  if (least.value.is_negative) {
    // -0 and -0.0 are zero.
    const bool reaches_zero =
        !most.value.is_negative && !(most.value.is_zero() && most.is_exclusive);
    const Magnitude nearest = most.value.is_negative ? magnitude(most)
                              : reaches_zero         ? zero
                                                     : Magnitude{"0", "", true};
    choices.push_back(source.sequence(
        {source.bytes("-"), magnitudes_between(source, nearest, magnitude(least))}));
  }
  if (!most.value.is_negative) {
    const Magnitude nearest = least.value.is_negative ? zero : magnitude(least);
    const bool is_only_zero = most.value.is_zero() && most.is_exclusive;
    const bool reaches_down_to_zero = least.value.is_zero() && !least.is_exclusive;
    if (!is_only_zero && reaches_down_to_zero) {  // -0 is zero as well
      choices.push_back(
          source.sequence({source.bytes("-"), magnitudes_between(source, zero, zero)}));
    }
    if (!is_only_zero) {
      choices.push_back(magnitudes_between(source, nearest, magnitude(most)));
    }
  }
  return source.choice(std::move(choices));
}

}  // namespace penstock
