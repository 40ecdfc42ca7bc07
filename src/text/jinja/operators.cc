#include "text/jinja/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/access.h"
#include "text/jinja/markup.h"
#include "text/jinja/python_format.h"
#include "text/jinja/python_text.h"

namespace penstock::jinja {
namespace {

Error too_deep() {
  return template_error(fmt::format("values nest deeper than {}", kValueDepthMax));
}

Error operand_error(std::string_view symbol, const Value& left, const Value& right) {
  if (left.is_undefined()) return undefined_error(left);
  if (right.is_undefined()) return undefined_error(right);
  return template_error(fmt::format("unsupported operand types for {}: {} and {}", symbol,
                                    type_name(left), type_name(right)));
}

Error integer_overflow() {
  return template_error("the result is an integer of more than 64 bits");
}

Result<bool> lists_equal(Arena& arena, const List& left, const List& right, int depth) {
  if (left.sort != right.sort || left.items.size() != right.items.size()) return false;
  if (&left == &right) return true;
  for (size_t i = 0; i < left.items.size(); ++i) {
    if (!PENSTOCK_TRY(equals(arena, left.items[i], right.items[i], depth + 1))) return false;
  }
  return true;
}

Result<bool> dicts_equal(Arena& arena, const Dict& left, const Dict& right, int depth) {
  if (left.items.size() != right.items.size()) return false;
  for (const auto& [key, value] : left.items) {
    const Value* other = PENSTOCK_TRY(find_key(arena, right, key));
    if (other == nullptr) return false;
    if (!PENSTOCK_TRY(equals(arena, value, *other, depth + 1))) return false;
  }
  return true;
}

Result<Value> add(Arena& arena, const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    int64_t sum = 0;
    if (__builtin_add_overflow(left.integer(), right.integer(), &sum)) return integer_overflow();
    return Value(sum);
  }
  if (left.is_number() && right.is_number()) return Value(left.real() + right.real());
  if (left.is_text() && right.is_text() && is_markup(left) != is_markup(right)) {
    const Value a = PENSTOCK_TRY(escaped(arena, left));
    const Value b = PENSTOCK_TRY(escaped(arena, right));
    return arena.markup(a.text().bytes + b.text().bytes);
  }
  if (left.is_text() && right.is_text()) {
    PENSTOCK_TRY(arena.spend_bytes(left.text().bytes.size() + right.text().bytes.size()));
    return arena.text_like(left, left.text().bytes + right.text().bytes);
  }
  const bool are_lists = left.is(Kind::kList) && right.is(Kind::kList) &&
                         left.list().sort == right.list().sort &&
                         left.list().sort != List::Sort::kGenerator;
  if (!are_lists) return operand_error("+", left, right);
  std::vector<Value> items = left.list().items;
  items.insert(items.end(), right.list().items.begin(), right.list().items.end());
  return arena.list(std::move(items), left.list().sort);
}

Result<Value> repeat(Arena& arena, const Value& sequence, int64_t count) {
  count = std::max<int64_t>(count, 0);
  const bool is_text = sequence.is_text();
  const size_t length = is_text ? sequence.text().bytes.size() : sequence.list().items.size();
  const auto total = static_cast<double>(length) * static_cast<double>(count);
  if (total > static_cast<double>(is_text ? kTextBytesMax : size_t{1} << 20)) {
    return template_error("the repeated text or list would be too long");
  }
  if (length == 0) count = 0;
  if (is_text) {
    std::string text;
    for (int64_t i = 0; i < count; ++i) text += sequence.text().bytes;
    return arena.text_like(sequence, std::move(text));
  }
  std::vector<Value> items;
  const std::vector<Value>& once = sequence.list().items;
  for (int64_t i = 0; i < count; ++i) items.insert(items.end(), once.begin(), once.end());
  return arena.list(std::move(items), sequence.list().sort);
}

Result<Value> multiply(Arena& arena, const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    int64_t product = 0;
    if (__builtin_mul_overflow(left.integer(), right.integer(), &product)) {
      return integer_overflow();
    }
    return Value(product);
  }
  if (left.is_number() && right.is_number()) return Value(left.real() * right.real());
  if (is_sequence(left) && right.is_integral()) return repeat(arena, left, right.integer());
  if (is_sequence(right) && left.is_integral()) return repeat(arena, right, left.integer());
  return operand_error("*", left, right);
}

// Python's quotient rounds down and its remainder has the sign of the divisor.
Result<Value> divide(Operator operation, const Value& left, const Value& right) {
  if (!left.is_number() || !right.is_number()) return operand_error("division", left, right);
  if (right.real() == 0) return template_error("division by zero");
  if (operation == Operator::kDivide) return Value(left.real() / right.real());
  if (left.is_integral() && right.is_integral()) {
    const int64_t a = left.integer();
    const int64_t b = right.integer();
    if (a == INT64_MIN && b == -1) return integer_overflow();
    const bool rounds_up = a % b != 0 && (a < 0) != (b < 0);  // C++ rounds towards zero
    if (operation == Operator::kFloorDivide) return Value(a / b - (rounds_up ? 1 : 0));
    return Value(a % b + (rounds_up ? b : 0));
  }
  const double a = left.real();
  const double b = right.real();
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (remainder == 0) remainder = std::copysign(0.0, b);
  if (operation == Operator::kModulo) return Value(remainder);
  return Value(std::floor((a - remainder) / b + 0.5));
}

Result<Value> power(const Value& left, const Value& right) {
  if (!left.is_number() || !right.is_number()) return operand_error("**", left, right);
  if (!left.is_integral() || !right.is_integral() || right.integer() < 0) {
    if (left.real() == 0 && right.real() < 0) return template_error("division by zero");
    const double result = std::pow(left.real(), right.real());
    if (!std::isfinite(result)) return template_error("the power is not a finite number");
    return Value(result);
  }
  int64_t result = 1;
  const int64_t base = left.integer();
  if (base == 0 || base == 1) return Value(right.integer() == 0 ? int64_t{1} : base);
  if (base == -1) return Value(right.integer() % 2 == 0 ? int64_t{1} : int64_t{-1});
  for (int64_t i = 0; i < right.integer(); ++i) {  // ends after 63 turns at the latest
    if (__builtin_mul_overflow(result, base, &result)) return integer_overflow();
  }
  return Value(result);
}

}  // namespace

bool is_true(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool:
    case Kind::kInt: return value.integer() != 0;
    case Kind::kFloat: return value.real() != 0;
    case Kind::kText: return !value.text().bytes.empty();
    case Kind::kList:
      return !value.list().items.empty() || value.list().sort == List::Sort::kGenerator;
    case Kind::kDict: return !value.dict().items.empty();
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kCycler:
    case Kind::kCallable: break;
  }
  return true;
}

Result<bool> equals(Arena& arena, const Value& left, const Value& right, int depth) {
  PENSTOCK_TRY(arena.spend(1));
  if (depth > kValueDepthMax) return too_deep();
  if (left.is_integral() && right.is_integral()) return left.integer() == right.integer();
  if (left.is_number() && right.is_number()) return left.real() == right.real();
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::kText: {
      const std::string& a = left.text().bytes;
      const std::string& b = right.text().bytes;
      if (a.size() != b.size()) return false;
      PENSTOCK_TRY(arena.spend_bytes(a.size()));
      return a == b;
    }
    case Kind::kList: return lists_equal(arena, left.list(), right.list(), depth);
    case Kind::kDict: return dicts_equal(arena, left.dict(), right.dict(), depth);
    case Kind::kCycler: return &left.cycler() == &right.cycler();
    case Kind::kNamespace: return &left.space() == &right.space();
    case Kind::kLoop: return &left.loop() == &right.loop();
    case Kind::kCallable: return &left.callable() == &right.callable();
    default: return true;  // undefined and none
  }
}

Result<int> compare_order(Arena& arena, const Value& left, const Value& right, int depth) {
  PENSTOCK_TRY(arena.spend(1));
  if (depth > kValueDepthMax) return too_deep();
  if (left.is_integral() && right.is_integral()) {
    return left.integer() < right.integer() ? -1 : int{left.integer() > right.integer()};
  }
  if (left.is_number() && right.is_number()) {
    return left.real() < right.real() ? -1 : int{left.real() > right.real()};
  }
  if (left.is_text() && right.is_text()) {
    const std::string& a = left.text().bytes;
    const std::string& b = right.text().bytes;
    PENSTOCK_TRY(arena.spend_bytes(std::min(a.size(), b.size())));
    return a.compare(b);  // UTF-8 sorts like code points
  }
  const bool are_lists =
      left.is(Kind::kList) && right.is(Kind::kList) && left.list().sort == right.list().sort;
  if (!are_lists) return operand_error("comparison", left, right);
  const std::vector<Value>& a = left.list().items;
  const std::vector<Value>& b = right.list().items;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (PENSTOCK_TRY(equals(arena, a[i], b[i], depth + 1))) continue;
    return compare_order(arena, a[i], b[i], depth + 1);
  }
  return a.size() < b.size() ? -1 : int{a.size() > b.size()};
}

Result<bool> contains(Arena& arena, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kText:
      if (!item.is_text()) {
        return template_error(
            fmt::format("'in' needs a text to look for in a text, not {}", type_name(item)));
      }
      PENSTOCK_TRY(arena.spend_bytes(container.text().bytes.size()));
      return find(container.text().bytes, item.text().bytes) != std::string_view::npos;
    case Kind::kDict:
      PENSTOCK_TRY(check_key(item));
      return PENSTOCK_TRY(find_key(arena, container.dict(), item)) != nullptr;
    case Kind::kUndefined:
    case Kind::kList: {
      const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, container));
      for (const Value& candidate : items) {
        if (PENSTOCK_TRY(equals(arena, candidate, item))) return true;
      }
      return false;
    }
    default: return template_error(fmt::format("'in' cannot look into {}", type_name(container)));
  }
}

Result<bool> compare(Arena& arena, Comparison comparison, const Value& left, const Value& right) {
  switch (comparison) {
    case Comparison::kEqual: return equals(arena, left, right);
    case Comparison::kNotEqual: return !PENSTOCK_TRY(equals(arena, left, right));
    case Comparison::kLess: return PENSTOCK_TRY(compare_order(arena, left, right)) < 0;
    case Comparison::kLessOrEqual: return PENSTOCK_TRY(compare_order(arena, left, right)) <= 0;
    case Comparison::kGreater: return PENSTOCK_TRY(compare_order(arena, left, right)) > 0;
    case Comparison::kGreaterOrEqual: return PENSTOCK_TRY(compare_order(arena, left, right)) >= 0;
    case Comparison::kIn: return contains(arena, right, left);
    case Comparison::kNotIn: break;
  }
  return !PENSTOCK_TRY(contains(arena, right, left));
}

Result<Value> operate(Arena& arena, Operator operation, const Value& left, const Value& right) {
  switch (operation) {
    case Operator::kAdd: return add(arena, left, right);
    case Operator::kSubtract: {
      if (!left.is_number() || !right.is_number()) return operand_error("-", left, right);
      if (!left.is_integral() || !right.is_integral()) return Value(left.real() - right.real());
      int64_t difference = 0;
      if (__builtin_sub_overflow(left.integer(), right.integer(), &difference)) {
        return integer_overflow();
      }
      return Value(difference);
    }
    case Operator::kMultiply: return multiply(arena, left, right);
    case Operator::kDivide:
    case Operator::kFloorDivide:
    case Operator::kModulo:
      if (left.is_text() && operation == Operator::kModulo) {
        return arena.text_like(left, PENSTOCK_TRY(percent_format(arena, left.text(), right)));
      }
      return divide(operation, left, right);
    case Operator::kPower: return power(left, right);
    case Operator::kConcatenate: break;
  }
  return arena.text(PENSTOCK_TRY(python_str(left)) + PENSTOCK_TRY(python_str(right)));
}

Result<Value> negate(Arena& arena, const Value& operand) {
  if (operand.is(Kind::kFloat)) return Value(-operand.real());
  return operate(arena, Operator::kSubtract, Value(int64_t{0}), operand);
}

}  // namespace penstock::jinja
