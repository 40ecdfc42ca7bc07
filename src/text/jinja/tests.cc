// The tests of filters.h: value is name(...).
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "text/jinja/access.h"
#include "text/jinja/character_class.h"
#include "text/jinja/filters.h"
#include "text/jinja/markup.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"

namespace penstock::jinja {
namespace {

using Test = Result<bool> (*)(Arena& arena, const Value& input, const Arguments& arguments);

struct NamedTest {
  std::string_view name;
  size_t arguments;
  Test call;
};

template <Kind kKind>
Result<bool> is_kind(Arena&, const Value& input, const Arguments&) {
  return input.is(kKind);
}

template <Comparison kComparison>
Result<bool> compares(Arena& arena, const Value& input, const Arguments& arguments) {
  return compare(arena, kComparison, input, arguments.positional[0]);
}

Result<bool> is_defined(Arena&, const Value& input, const Arguments&) {
  return !input.is_undefined();
}

Result<bool> is_number(Arena&, const Value& input, const Arguments&) {
  return input.is_number();
}

Result<bool> is_true_itself(Arena&, const Value& input, const Arguments&) {
  return input.is(Kind::kBool) && input.boolean();
}

Result<bool> is_false_itself(Arena&, const Value& input, const Arguments&) {
  return input.is(Kind::kBool) && !input.boolean();
}

Result<bool> is_iterable(Arena&, const Value& input, const Arguments&) {
  return input.is_undefined() || input.is_text() || input.is(Kind::kList) ||
         input.is(Kind::kDict) || input.is(Kind::kLoop);
}

// "Has a length and items by index", which is true of dicts and, in Jinja2, of undefined.
Result<bool> is_sequence_like(Arena&, const Value& input, const Arguments&) {
  return input.is_undefined() || input.is(Kind::kDict) || is_sequence(input);
}

Result<bool> is_divisible(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value rest =
      PENSTOCK_TRY(operate(arena, Operator::kModulo, input, arguments.positional[0]));
  return !is_true(rest);
}

template <int64_t kRest>
Result<bool> has_parity(Arena& arena, const Value& input, const Arguments&) {
  const Value rest = PENSTOCK_TRY(operate(arena, Operator::kModulo, input, Value(int64_t{2})));
  return rest.real() == static_cast<double>(kRest);
}

Result<bool> is_same(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value& other = arguments.positional[0];
  if (input.kind() != other.kind()) return false;
  if (input.is(Kind::kList)) return &input.list() == &other.list();
  if (input.is(Kind::kDict)) return &input.dict() == &other.dict();
  return equals(arena, input, other);
}

template <bool (*kIs)(std::string_view)>
Result<bool> printed_is(Arena& arena, const Value& input, const Arguments&) {
  const std::string text = PENSTOCK_TRY(python_str(input));
  PENSTOCK_TRY(arena.spend_bytes(text.size()));
  return kIs(text);
}

Result<bool> is_escaped(Arena&, const Value& input, const Arguments&) {
  return is_markup(input);
}

template <bool (*kIs)(std::string_view)>
Result<bool> names_one(Arena&, const Value& input, const Arguments&) {
  return input.is_text() && kIs(input.text().bytes);
}

constexpr NamedTest kTests[] = {
    {"defined", 0, is_defined},
    {"undefined", 0, is_kind<Kind::kUndefined>},
    {"none", 0, is_kind<Kind::kNone>},
    {"string", 0, is_kind<Kind::kText>},
    {"mapping", 0, is_kind<Kind::kDict>},
    {"boolean", 0, is_kind<Kind::kBool>},
    {"integer", 0, is_kind<Kind::kInt>},
    {"float", 0, is_kind<Kind::kFloat>},
    {"callable", 0, is_kind<Kind::kCallable>},
    {"number", 0, is_number},
    {"true", 0, is_true_itself},
    {"false", 0, is_false_itself},
    {"iterable", 0, is_iterable},
    {"sequence", 0, is_sequence_like},
    {"divisibleby", 1, is_divisible},
    {"even", 0, has_parity<0>},
    {"odd", 0, has_parity<1>},
    {"sameas", 1, is_same},
    {"lower", 0, printed_is<is_lower_text>},
    {"upper", 0, printed_is<is_upper_text>},
    {"eq", 1, compares<Comparison::kEqual>},
    {"==", 1, compares<Comparison::kEqual>},
    {"equalto", 1, compares<Comparison::kEqual>},
    {"ne", 1, compares<Comparison::kNotEqual>},
    {"!=", 1, compares<Comparison::kNotEqual>},
    {"lt", 1, compares<Comparison::kLess>},
    {"<", 1, compares<Comparison::kLess>},
    {"lessthan", 1, compares<Comparison::kLess>},
    {"le", 1, compares<Comparison::kLessOrEqual>},
    {"<=", 1, compares<Comparison::kLessOrEqual>},
    {"gt", 1, compares<Comparison::kGreater>},
    {">", 1, compares<Comparison::kGreater>},
    {"greaterthan", 1, compares<Comparison::kGreater>},
    {"ge", 1, compares<Comparison::kGreaterOrEqual>},
    {">=", 1, compares<Comparison::kGreaterOrEqual>},
    {"in", 1, compares<Comparison::kIn>},
    {"escaped", 0, is_escaped},
    {"filter", 0, names_one<is_filter>},
    {"test", 0, names_one<is_test>},
};

}  // namespace

bool is_test(std::string_view name) {
  return std::any_of(std::begin(kTests), std::end(kTests),
                     [&](const NamedTest& test) { return test.name == name; });
}

Result<bool> apply_test(Arena& arena, std::string_view name, const Value& input,
                        const Arguments& arguments) {
  PENSTOCK_TRY(arena.spend(1));
  for (const NamedTest& test : kTests) {
    if (test.name != name) continue;
    if (arguments.positional.size() != test.arguments || !arguments.keywords.empty()) {
      return template_error(fmt::format("the test '{}' takes {} arguments, not {}", name,
                                        test.arguments,
                                        arguments.positional.size() + arguments.keywords.size()));
    }
    return test.call(arena, input, arguments);
  }
  return Error{ErrorCode::kUnsupported, fmt::format("the test '{}' is not known", name)};
}

}  // namespace penstock::jinja
