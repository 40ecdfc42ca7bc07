#include "text/jinja/functions.h"

#include <fmt/format.h>

#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"

namespace penstock::jinja {
namespace {

Result<Value> make_range(Arena& arena, const Arguments& arguments) {
  const std::vector<Value>& given = arguments.positional;
  for (const Value& value : given) {
    if (!value.is_integral()) {
      return template_error(fmt::format("range() needs integers, not {}", type_name(value)));
    }
  }
  const bool has_start = given.size() > 1;
  const int64_t start = has_start ? given[0].integer() : 0;
  const int64_t stop = given[has_start ? 1 : 0].integer();
  const int64_t step = given.size() > 2 ? given[2].integer() : 1;
  if (step == 0) return template_error("the step of range() cannot be zero");
  std::vector<Value> numbers;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (std::ssize(numbers) == kRangeMax) {
      return template_error(fmt::format("range() gives more than {} numbers", kRangeMax));
    }
    numbers.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return arena.list(std::move(numbers));
}

// The items of namespace(...) and dict(...): those of a dict, then the named ones.
Result<std::vector<std::pair<Value, Value>>> named_items(Arena& arena, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (!arguments.positional.empty()) {
    const Value& first = arguments.positional[0];
    if (!first.is(Kind::kDict)) {
      return template_error(fmt::format("expected a mapping, not {}", type_name(first)));
    }
    items = first.dict().items;
  }
  for (const auto& [name, value] : arguments.keywords) {
    PENSTOCK_TRY(arena.spend(static_cast<int64_t>(items.size())));
    bool is_known = false;
    for (auto& [key, old] : items) {
      if (!key.is_text() || key.text().bytes != name) continue;
      old = value;
      is_known = true;
    }
    if (!is_known) items.emplace_back(PENSTOCK_TRY(arena.text(std::string(name))), value);
  }
  return items;
}

Result<Value> make_namespace(Arena& arena, const Arguments& arguments) {
  const auto items = PENSTOCK_TRY(named_items(arena, arguments));
  Namespace& space = *PENSTOCK_TRY(arena.make_namespace());
  for (const auto& [key, value] : items) {
    if (!key.is_text()) return template_error("the attributes of a namespace need names");
    space.attributes.emplace_back(key.text().bytes, value);
  }
  PENSTOCK_TRY(arena.spend(static_cast<int64_t>(items.size())));
  return Value(&space);
}

}  // namespace

Result<Value> call_function(Arena& arena, std::string_view name, const Arguments& arguments) {
  PENSTOCK_TRY(arena.spend(1));
  if (name == "range") {
    PENSTOCK_TRY(check_arguments(name, arguments, {"", "", ""}, 1));
    return make_range(arena, arguments);
  }
  if (name == "raise_exception") {
    PENSTOCK_TRY(check_arguments(name, arguments, {"message"}, 1));
    return template_error(PENSTOCK_TRY(python_str(*arguments.find(0, "message"))));
  }
  if (arguments.positional.size() > 1) {
    return template_error(fmt::format("{}() takes at most one mapping", name));
  }
  if (name == "namespace") return make_namespace(arena, arguments);
  return arena.dict(PENSTOCK_TRY(named_items(arena, arguments)));
}

}  // namespace penstock::jinja
