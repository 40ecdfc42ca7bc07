#include "text/jinja/functions.h"

#include <fmt/format.h>

#include "text/jinja/access.h"
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

// The items of a dict, or what a list of pairs says; of two for a key the last wins.
Result<std::vector<std::pair<Value, Value>>> pairs_in(Arena& arena, const Value& value) {
  if (value.is(Kind::kDict)) {
    PENSTOCK_TRY(arena.spend(std::ssize(value.dict().items)));
    return value.dict().items;
  }
  std::vector<std::pair<Value, Value>> pairs;
  const std::vector<Value> all = PENSTOCK_TRY(items_of(arena, value));
  for (const Value& entry : all) {
    if (entry.is_undefined()) return undefined_error(entry);
    const std::vector<Value> pair = PENSTOCK_TRY(items_of(arena, entry));
    if (pair.size() != 2) {
      return template_error("expected a mapping or a list of pairs");
    }
    PENSTOCK_TRY(check_key(pair[0]));
    bool is_known = false;
    for (auto& [key, old] : pairs) {
      if (!PENSTOCK_TRY(equals(arena, key, pair[0]))) continue;
      old = pair[1];
      is_known = true;
      break;
    }
    if (!is_known) pairs.emplace_back(pair[0], pair[1]);
  }
  return pairs;
}

// The items of namespace(...) and dict(...): those of a dict, then the named ones.
Result<std::vector<std::pair<Value, Value>>> named_items(Arena& arena, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (!arguments.positional.empty()) {
    items = PENSTOCK_TRY(pairs_in(arena, arguments.positional[0]));
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

Result<Value> make_cycler(Arena& arena, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.keywords.empty()) {
    return template_error("cycler() needs values, without names");
  }
  return Value(PENSTOCK_TRY(arena.make_cycler(arguments.positional)));
}

Result<Value> make_joiner(Arena& arena, const Arguments& arguments) {
  PENSTOCK_TRY(check_arguments("joiner", arguments, {"sep"}, 0));
  const Value* given = arguments.find(0, "sep");
  const Value separator = given != nullptr ? *given : PENSTOCK_TRY(arena.text(", "));
  const Value nothing = PENSTOCK_TRY(arena.text(""));
  Callable joiner;
  joiner.sort = Callable::Sort::kJoiner;
  joiner.name = "joiner";
  joiner.self = Value(PENSTOCK_TRY(arena.make_cycler({nothing, separator})));
  return arena.callable(joiner);
}

Result<Value> time_as(Arena& arena, const LocalTime& now, const Arguments& arguments) {
  PENSTOCK_TRY(check_arguments("strftime_now", arguments, {"format"}, 1));
  const Value& format = *arguments.find(0, "format");
  if (!format.is_text()) {
    return template_error(
        fmt::format("strftime_now() needs a text such as '%Y-%m-%d', not {}", type_name(format)));
  }
  return arena.text(PENSTOCK_TRY(format_time(now, format.text().bytes)));
}

}  // namespace

Result<Value> call_joiner(const Callable& joiner, const Arguments& arguments) {
  PENSTOCK_TRY(check_arguments("joiner", arguments, {}, 0));
  Cycler& state = joiner.self.cycler();
  const Value value = state.items[state.position];
  state.position = 1;
  return value;
}

Result<Value> call_function(Arena& arena, const LocalTime& now, std::string_view name,
                            const Arguments& arguments) {
  PENSTOCK_TRY(arena.spend(1));
  if (name == "range") {
    PENSTOCK_TRY(check_arguments(name, arguments, {"", "", ""}, 1));
    return make_range(arena, arguments);
  }
  if (name == "raise_exception") {
    PENSTOCK_TRY(check_arguments(name, arguments, {"message"}, 1));
    return template_error(PENSTOCK_TRY(python_str(*arguments.find(0, "message"))));
  }
  if (name == "cycler") return make_cycler(arena, arguments);
  if (name == "joiner") return make_joiner(arena, arguments);
  if (name == "strftime_now") return time_as(arena, now, arguments);
  if (arguments.positional.size() > 1) {
    return template_error(fmt::format("{}() takes at most one mapping", name));
  }
  if (name == "namespace") return make_namespace(arena, arguments);
  return arena.dict(PENSTOCK_TRY(named_items(arena, arguments)));
}

}  // namespace penstock::jinja
