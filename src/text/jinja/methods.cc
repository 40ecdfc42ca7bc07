#include "text/jinja/methods.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/access.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"

namespace penstock::jinja {
namespace {

using Method = Result<Value> (*)(Arena& arena, const Value& self, const Arguments& arguments);

struct NamedMethod {
  std::string_view name;
  std::vector<std::string_view> parameters;
  size_t required;
  Method call;
};

Result<Value> list_of(Arena& arena, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  for (const std::string_view part : parts) {
    items.push_back(PENSTOCK_TRY(arena.text(std::string(part))));
  }
  return arena.list(std::move(items));
}

// The text of an argument, or nothing if it was left out or is none.
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

template <std::string (*kMap)(std::string_view)>
Result<Value> mapped(Arena& arena, const Value& self, const Arguments&) {
  return arena.text(kMap(self.text().bytes));
}

template <Side kSide>
Result<Value> stripped(Arena& arena, const Value& self, const Arguments& arguments) {
  const auto characters = PENSTOCK_TRY(optional_text(arguments.find(0, "")));
  return arena.text(std::string(strip(self.text().bytes, kSide, characters)));
}

template <bool kFromRight>
Result<Value> split_text(Arena& arena, const Value& self, const Arguments& arguments) {
  const std::string_view text = self.text().bytes;
  const auto separator = PENSTOCK_TRY(optional_text(arguments.find(0, "sep")));
  const int64_t count = PENSTOCK_TRY(integer_argument(arguments.find(1, "maxsplit"), -1));
  if (!separator) {
    if (kFromRight && count >= 0) return template_error("rsplit() needs a separator here");
    return list_of(arena, split_at_space(text, count));
  }
  if (separator->empty()) return template_error("split() with an empty separator");
  if (!kFromRight) return list_of(arena, split(text, *separator, count));
  // The search from the right may compare the whole separator at each position.
  PENSTOCK_TRY(arena.spend_bytes(std::min(text.size() * separator->size(), text.size() << 8)));
  if (separator->size() > 256) return template_error("rsplit() with a separator of over 256 bytes");
  return list_of(arena, split_right(text, *separator, count));
}

Result<Value> split_into_lines(Arena& arena, const Value& self, const Arguments&) {
  return list_of(arena, split_lines(self.text().bytes));
}

template <bool kAtEnd>
Result<Value> has_affix(Arena&, const Value& self, const Arguments& arguments) {
  const std::string_view text = self.text().bytes;
  const auto fits = [&](const Value& affix) {
    return kAtEnd ? text.ends_with(affix.text().bytes) : text.starts_with(affix.text().bytes);
  };
  const Value& wanted = arguments.positional[0];
  if (wanted.is_text()) return Value(fits(wanted));
  if (!wanted.is(Kind::kList) || wanted.list().sort != List::Sort::kTuple) {
    return template_error(fmt::format("{} needs a text or a tuple of texts, not {}",
                                      kAtEnd ? "endswith()" : "startswith()", type_name(wanted)));
  }
  for (const Value& affix : wanted.list().items) {
    if (!affix.is_text()) return template_error("a tuple of prefixes or suffixes must be texts");
    if (fits(affix)) return Value(true);
  }
  return Value(false);
}

template <bool kAtEnd>
Result<Value> without_affix(Arena& arena, const Value& self, const Arguments& arguments) {
  std::string_view text = self.text().bytes;
  const std::string_view affix = PENSTOCK_TRY(text_argument(arguments, 0));
  if (kAtEnd && text.ends_with(affix)) text.remove_suffix(affix.size());
  if (!kAtEnd && text.starts_with(affix)) text.remove_prefix(affix.size());
  return arena.text(std::string(text));
}

Result<Value> replaced(Arena& arena, const Value& self, const Arguments& arguments) {
  const std::string_view old = PENSTOCK_TRY(text_argument(arguments, 0));
  const std::string_view replacement = PENSTOCK_TRY(text_argument(arguments, 1));
  const int64_t count = PENSTOCK_TRY(integer_argument(arguments.find(2, "count"), -1));
  return arena.text(PENSTOCK_TRY(replace(self.text().bytes, old, replacement, count)));
}

Result<Value> found_at(Arena&, const Value& self, const Arguments& arguments) {
  const std::string_view text = self.text().bytes;
  const size_t position = find(text, PENSTOCK_TRY(text_argument(arguments, 0)));
  if (position == std::string_view::npos) return Value(int64_t{-1});
  return Value(code_point_count(text.substr(0, position)));
}

Result<Value> counted(Arena& arena, const Value& self, const Arguments& arguments) {
  const std::string_view text = self.text().bytes;
  const std::string_view wanted = PENSTOCK_TRY(text_argument(arguments, 0));
  if (wanted.empty()) return Value(self.text().length + 1);
  int64_t count = 0;
  for (size_t at = find(text, wanted); at != std::string_view::npos; ++count) {
    at = find(text, wanted, at + wanted.size());
  }
  PENSTOCK_TRY(arena.spend(count));
  return Value(count);
}

Result<Value> joined(Arena& arena, const Value& self, const Arguments& arguments) {
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, arguments.positional[0]));
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_text()) {
      return template_error(
          fmt::format("join() needs texts, item {} is a {}", i, type_name(items[i])));
    }
    if (i > 0) text += self.text().bytes;
    text += items[i].text().bytes;
    if (text.size() > kTextBytesMax) return template_error("join() makes more than 16 MiB");
  }
  return arena.text(std::move(text));
}

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
  for (size_t i = 0; i < items.size(); ++i) {
    if (PENSTOCK_TRY(equals(arena, items[i], arguments.positional[0]))) {
      return Value(static_cast<int64_t>(i));
    }
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

const std::vector<NamedMethod>& methods_of(Kind kind) {
  static const std::vector<NamedMethod> kNone;
  static const std::vector<NamedMethod> kTextMethods = {
      {"strip", {""}, 0, stripped<Side::kBoth>},
      {"lstrip", {""}, 0, stripped<Side::kLeft>},
      {"rstrip", {""}, 0, stripped<Side::kRight>},
      {"split", {"sep", "maxsplit"}, 0, split_text<false>},
      {"rsplit", {"sep", "maxsplit"}, 0, split_text<true>},
      {"splitlines", {}, 0, split_into_lines},
      {"startswith", {""}, 1, has_affix<false>},
      {"endswith", {""}, 1, has_affix<true>},
      {"removeprefix", {""}, 1, without_affix<false>},
      {"removesuffix", {""}, 1, without_affix<true>},
      {"replace", {"", "", "count"}, 2, replaced},
      {"upper", {}, 0, mapped<upper>},
      {"lower", {}, 0, mapped<lower>},
      {"title", {}, 0, mapped<title>},
      {"capitalize", {}, 0, mapped<capitalize>},
      {"find", {""}, 1, found_at},
      {"count", {""}, 1, counted},
      {"join", {""}, 1, joined},
  };
  static const std::vector<NamedMethod> kDictMethods = {
      {"items", {}, 0, pairs_of},
      {"keys", {}, 0, keys_of},
      {"values", {}, 0, values_of},
      {"get", {"", ""}, 1, value_of},
  };
  static const std::vector<NamedMethod> kListMethods = {
      {"index", {""}, 1, index_in_list},
      {"count", {""}, 1, count_in_list},
  };
  if (kind == Kind::kText) return kTextMethods;
  if (kind == Kind::kDict) return kDictMethods;
  return kind == Kind::kList ? kListMethods : kNone;
}

const NamedMethod* find_method(Kind kind, std::string_view name) {
  for (const NamedMethod& method : methods_of(kind)) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace

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
  PENSTOCK_TRY(check_arguments(method->name, arguments, method->parameters, method->required));
  if (callable.self.is_text()) {
    PENSTOCK_TRY(arena.spend_bytes(callable.self.text().bytes.size()));
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
  // The depth of recursion, of which there is none.
  if (name == "depth") value = Value(int64_t{1});
  if (name == "depth0") value = Value(int64_t{0});
  if (name == "previtem") return neighbour(index - 1, "there is no previous item");
  if (name == "nextitem") return neighbour(index + 1, "there is no next item");
  return value;
}

}  // namespace penstock::jinja
