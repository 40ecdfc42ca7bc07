#include "text/jinja/methods.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/access.h"
#include "text/jinja/markup.h"
#include "text/jinja/method_table.h"
#include "text/jinja/operators.h"

namespace penstock::jinja {
namespace {

Result<Value> pairs_of(Arena& arena, const Value& self, const Arguments&) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict().items) {
    pairs.push_back(PENSTOCK_TRY(arena.list({key, value}, List::Sort::kTuple)));
  }
  return arena.list(std::move(pairs));
}

Result<Value> keys_of(Arena& arena, const Value& self, const Arguments&) {
  return arena.list(PENSTOCK_TRY(items_of(arena, self)));
}

Result<Value> values_of(Arena& arena, const Value& self, const Arguments&) {
  std::vector<Value> values;
  for (const auto& [key, value] : self.dict().items) values.push_back(value);
  return arena.list(std::move(values));
}

Result<Value> value_of(Arena& arena, const Value& self, const Arguments& arguments) {
  PENSTOCK_TRY(check_key(arguments.positional[0]));
  const Value* found = PENSTOCK_TRY(find_key(arena, self.dict(), arguments.positional[0]));
  if (found != nullptr) return *found;
  const Value* otherwise = arguments.find(1, "default");
  return otherwise == nullptr ? Value::none() : *otherwise;
}

Result<Value> index_in_list(Arena& arena, const Value& self, const Arguments& arguments) {
  const std::vector<Value>& items = self.list().items;
  const int64_t length = std::ssize(items);
  const auto place = [&](const Value* bound, int64_t otherwise) -> Result<int64_t> {
    const int64_t index = PENSTOCK_TRY(integer_argument(bound, otherwise));
    return std::clamp<int64_t>(index < 0 ? index + length : index, 0, length);
  };
  const int64_t start = PENSTOCK_TRY(place(arguments.find(1, ""), 0));
  const int64_t stop = PENSTOCK_TRY(place(arguments.find(2, ""), length));
  for (int64_t i = start; i < stop; ++i) {
    if (PENSTOCK_TRY(equals(arena, items[i], arguments.positional[0]))) return Value(i);
  }
  return template_error("index(): the list does not have this value");
}

Result<Value> count_in_list(Arena& arena, const Value& self, const Arguments& arguments) {
  int64_t count = 0;
  for (const Value& item : self.list().items) {
    if (PENSTOCK_TRY(equals(arena, item, arguments.positional[0]))) ++count;
  }
  return Value(count);
}

Result<Value> copy_of(Arena& arena, const Value& self, const Arguments&) {
  if (self.is(Kind::kDict)) return arena.dict(self.dict().items);
  if (self.list().sort == List::Sort::kList) return arena.list(self.list().items);
  return template_error(fmt::format("a {} has no copy()", type_name(self)));
}

Result<Value> cycled(Arena&, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) return template_error("loop.cycle() needs values");
  return arguments.positional[self.loop().index % arguments.positional.size()];
}

Result<Value> has_changed(Arena& arena, const Value& self, const Arguments& arguments) {
  Loop& loop = self.loop();
  const Value now = PENSTOCK_TRY(arena.list(arguments.positional, List::Sort::kTuple));
  if (loop.last_seen != nullptr) {
    const std::vector<Value>& before = loop.last_seen->items;
    bool is_same = before.size() == now.list().items.size();
    for (size_t i = 0; is_same && i < before.size(); ++i) {
      is_same = PENSTOCK_TRY(equals(arena, before[i], now.list().items[i]));
    }
    if (is_same) return Value(false);
  }
  loop.last_seen = &now.list();
  return Value(true);
}

Result<Value> next_in_turn(Arena&, const Value& self, const Arguments&) {
  Cycler& cycler = self.cycler();
  const Value value = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return value;
}

Result<Value> begin_again(Arena&, const Value& self, const Arguments&) {
  self.cycler().position = 0;
  return Value::none();
}

const std::vector<NamedMethod>& methods_of(Kind kind) {
  static const std::vector<NamedMethod> kNone;
  static const std::vector<NamedMethod> kDictMethods = {
      {"items", {}, 0, pairs_of},     {"keys", {}, 0, keys_of}, {"values", {}, 0, values_of},
      {"get", {"", ""}, 1, value_of}, {"copy", {}, 0, copy_of},
  };
  static const std::vector<NamedMethod> kListMethods = {
      {"index", {"", "", ""}, 1, index_in_list},
      {"count", {""}, 1, count_in_list},
      {"copy", {}, 0, copy_of},
  };
  using Markup = NamedMethod::Markup;
  static const std::vector<NamedMethod> kLoopMethods = {
      {"cycle", {}, 0, cycled, Markup::kNothing, true},
      {"changed", {}, 0, has_changed, Markup::kNothing, true},
  };
  static const std::vector<NamedMethod> kCyclerMethods = {
      {"next", {}, 0, next_in_turn},
      {"reset", {}, 0, begin_again},
  };
  switch (kind) {
    case Kind::kText: return text_methods();
    case Kind::kDict: return kDictMethods;
    case Kind::kList: return kListMethods;
    case Kind::kLoop: return kLoopMethods;
    case Kind::kCycler: return kCyclerMethods;
    default: return kNone;
  }
}

const NamedMethod* find_method(Kind kind, std::string_view name) {
  for (const NamedMethod& method : methods_of(kind)) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

// As Markup does it: what is joined to it is escaped first.
Result<Value> call_on_markup(Arena& arena, const NamedMethod& method, const Value& self,
                             const Arguments& arguments) {
  if (method.markup == NamedMethod::Markup::kMarks) {
    return marked(arena, PENSTOCK_TRY(method.call(arena, self, arguments)));
  }
  const auto made_safe = [&](const Value& value) -> Result<Value> {
    if (!value.is_text()) return value;
    return escaped(arena, value);
  };
  Arguments safe;
  for (const Value& value : arguments.positional) {
    safe.positional.push_back(PENSTOCK_TRY(made_safe(value)));
  }
  for (const auto& [name, value] : arguments.keywords) {
    safe.keywords.emplace_back(name, PENSTOCK_TRY(made_safe(value)));
  }
  return marked(arena, PENSTOCK_TRY(method.call(arena, self, safe)));
}

}  // namespace

Result<std::optional<std::string_view>> optional_text(const Value* argument) {
  if (argument == nullptr || argument->is_none()) return std::optional<std::string_view>();
  if (argument->is_text()) return std::optional<std::string_view>(argument->text().bytes);
  if (argument->is_undefined()) return undefined_error(*argument);
  return template_error(fmt::format("the argument must be a text, not {}", type_name(*argument)));
}

Result<std::string_view> text_argument(const Arguments& arguments, size_t index) {
  const auto text = PENSTOCK_TRY(optional_text(&arguments.positional[index]));
  if (!text) return template_error("the argument must be a text, not None");
  return *text;
}

Result<int64_t> integer_argument(const Value* argument, int64_t otherwise) {
  if (argument == nullptr) return otherwise;
  if (argument->is_integral()) return argument->integer();
  return template_error(
      fmt::format("the argument must be an integer, not {}", type_name(*argument)));
}

const Value* Arguments::find(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : keywords) {
    if (!name.empty() && key == name) return &value;
  }
  return nullptr;
}

Result<void> check_arguments(std::string_view function, const Arguments& arguments,
                             const std::vector<std::string_view>& names, size_t required) {
  if (arguments.positional.size() > names.size()) {
    return template_error(fmt::format("{}() takes at most {} arguments, not {}", function,
                                      names.size(), arguments.positional.size()));
  }
  for (const auto& [key, value] : arguments.keywords) {
    const auto found = std::find(names.begin(), names.end(), key);
    if (found == names.end()) {
      return template_error(fmt::format("{}() has no argument named '{}'", function, key));
    }
    if (static_cast<size_t>(found - names.begin()) < arguments.positional.size()) {
      return template_error(fmt::format("{}() is given '{}' twice", function, key));
    }
  }
  for (size_t i = 0; i < required; ++i) {
    if (arguments.find(i, names[i]) == nullptr) {
      return template_error(fmt::format("{}() needs {} arguments", function, required));
    }
  }
  return {};
}

Result<std::optional<Value>> bound_method(Arena& arena, const Value& object,
                                          std::string_view name) {
  const NamedMethod* method = find_method(object.kind(), name);
  if (method == nullptr) return std::optional<Value>();
  Callable callable;
  callable.sort = Callable::Sort::kMethod;
  callable.name = method->name;
  callable.self = object;
  return std::optional<Value>(PENSTOCK_TRY(arena.callable(callable)));
}

Result<Value> call_method(Arena& arena, const Callable& callable, const Arguments& arguments) {
  const NamedMethod* method = find_method(callable.self.kind(), callable.name);
  PENSTOCK_CHECK(method != nullptr);
  if (!method->takes_any) {
    PENSTOCK_TRY(check_arguments(method->name, arguments, method->parameters, method->required));
  }
  if (callable.self.is_text()) {
    PENSTOCK_TRY(arena.spend_bytes(callable.self.text().bytes.size()));
  }
  if (is_markup(callable.self) && method->markup != NamedMethod::Markup::kNothing) {
    return call_on_markup(arena, *method, callable.self, arguments);
  }
  return method->call(arena, callable.self, arguments);
}

Result<std::optional<Value>> loop_attribute(Arena& arena, const Loop& loop, std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(loop.items.size());
  const auto neighbour = [&](int64_t at, std::string reason) -> Result<std::optional<Value>> {
    if (at >= 0 && at < length) return std::optional<Value>(loop.items[at]);
    return std::optional<Value>(PENSTOCK_TRY(arena.undefined(std::move(reason))));
  };
  std::optional<Value> value;
  if (name == "index") value = Value(index + 1);
  if (name == "index0") value = Value(index);
  if (name == "revindex") value = Value(length - index);
  if (name == "revindex0") value = Value(length - index - 1);
  if (name == "first") value = Value(index == 0);
  if (name == "last") value = Value(index + 1 == length);
  if (name == "length") value = Value(length);
  if (name == "depth") value = Value(loop.depth + 1);
  if (name == "depth0") value = Value(loop.depth);
  if (name == "previtem") return neighbour(index - 1, "there is no previous item");
  if (name == "nextitem") return neighbour(index + 1, "there is no next item");
  return value;
}

}  // namespace penstock::jinja
