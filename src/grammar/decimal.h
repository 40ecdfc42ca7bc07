// Decimal numbers between two limits, as texts.
//
// A schema's "minimum": -3, "maximum": 120.5 becomes an expression over digits. Limits are texts,
// so nothing is rounded.
//
// Threads  plain functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "grammar/expression.h"

namespace penstock {

// A number in plain decimal notation.
struct Decimal {
  bool is_negative = false;
  std::string whole = "0";  // no leading zeros
  std::string fraction;     // no trailing zeros

  // From JSON's notation. Nothing if the exponent is beyond +-400.
  static std::optional<Decimal> parse(std::string_view text);
  bool is_zero() const { return whole == "0" && fraction.empty(); }
  friend bool operator==(const Decimal&, const Decimal&) = default;
};

// -1, 0, 1 as a is less than, equal to, greater than b.
int compare(const Decimal& a, const Decimal& b);

struct DecimalLimit {
  Decimal value;
  bool is_exclusive = false;
};

// All whole numbers from `low` to `high` (whole numbers, inclusive).
ExpressionId integers_between(GrammarSource& source, const Decimal& low, const Decimal& high);

// The least whole number that is at least (or above) the limit, and the greatest at most (below).
Decimal least_integer(const DecimalLimit& limit);
Decimal greatest_integer(const DecimalLimit& limit);

// All numbers without exponent between the limits; a missing one is 40 digits away from 0.
ExpressionId numbers_between(GrammarSource& source, const std::optional<DecimalLimit>& low,
                             const std::optional<DecimalLimit>& high);

}  // namespace penstock
