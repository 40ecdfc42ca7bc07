#include "text/jinja/value.h"

#include <fmt/format.h>

#include <iterator>

#include "text/jinja/python_text.h"

namespace penstock::jinja {
namespace {

// Below this, looking through the items is quicker than hashing.
constexpr size_t kItemsWithoutIndex = 8;

// Costs in steps of what stays in memory until the end, so that the budget bounds that, too: a text
// or another object takes about 64 bytes, a value in a list 16.
constexpr int64_t kStepsPerObject = 4;
constexpr int64_t kStepsPerItem = 2;

void make_index(Dict& dict) {
  if (dict.items.size() <= kItemsWithoutIndex) return;
  for (size_t i = 0; i < dict.items.size(); ++i) {
    const Value& key = dict.items[i].first;
    if (key.is_text()) dict.text_keys.emplace(key.text().bytes, i);
  }
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  if (items.size() > kItemsWithoutIndex) {
    const auto found = text_keys.find(key);
    return found == text_keys.end() ? nullptr : &items[found->second].second;
  }
  for (const auto& [name, value] : items) {
    if (name.is_text() && name.text().bytes == key) return &value;
  }
  return nullptr;
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  for (auto& [key, old] : attributes) {
    if (key == name) {
      old = value;
      return;
    }
  }
  attributes.emplace_back(name, value);
}

Result<void> Arena::spend(int64_t steps) {
  if (steps > steps_left_) {
    return template_error(fmt::format(
        "the template does too much work: more than {} steps for this conversation (it may loop "
        "without an end)",
        kStepsMax));
  }
  steps_left_ -= steps;
  return {};
}

Text* Arena::make_text(std::string bytes) {
  const int64_t length = code_point_count(bytes);
  return &texts_.emplace_back(Text{std::move(bytes), length, false});
}

Result<Value> Arena::text(std::string bytes) {
  if (bytes.size() > kTextBytesMax) return template_error("a text of more than 16 MiB");
  PENSTOCK_TRY(spend(kStepsPerObject));
  PENSTOCK_TRY(spend_bytes(bytes.size()));
  return Value(static_cast<const Text*>(make_text(std::move(bytes))));
}

Result<Value> Arena::markup(std::string bytes) {
  if (bytes.size() > kTextBytesMax) return template_error("a text of more than 16 MiB");
  PENSTOCK_TRY(spend(kStepsPerObject));
  PENSTOCK_TRY(spend_bytes(bytes.size()));
  Text* text = make_text(std::move(bytes));
  text->is_markup = true;
  return Value(static_cast<const Text*>(text));
}

Result<Value> Arena::text_like(const Value& origin, std::string bytes) {
  const bool is_markup = origin.is_text() && origin.text().is_markup;
  return is_markup ? markup(std::move(bytes)) : text(std::move(bytes));
}

Result<Value> Arena::list(std::vector<Value> items, List::Sort sort) {
  PENSTOCK_TRY(spend(kStepsPerObject + std::ssize(items) * kStepsPerItem));
  return Value(&lists_.emplace_back(List{std::move(items), sort, false}));
}

Result<Value> Arena::dict(std::vector<std::pair<Value, Value>> items) {
  PENSTOCK_TRY(spend(kStepsPerObject + std::ssize(items) * 2 * kStepsPerItem));
  Dict& dict = dicts_.emplace_back(Dict{std::move(items), {}});
  make_index(dict);
  return Value(&dict);
}

Result<Value> Arena::undefined(std::string reason) {
  PENSTOCK_TRY(spend(kStepsPerObject));
  return Value::undefined(&reasons_.emplace_back(std::move(reason)));
}

Result<Value> Arena::callable(Callable callable) {
  PENSTOCK_TRY(spend(kStepsPerObject));
  return Value(&callables_.emplace_back(callable));
}

Result<Namespace*> Arena::make_namespace() {
  PENSTOCK_TRY(spend(kStepsPerObject));
  return &namespaces_.emplace_back();
}

Result<Loop*> Arena::make_loop(std::vector<Value> items) {
  PENSTOCK_TRY(spend(kStepsPerObject + std::ssize(items)));
  Loop& loop = loops_.emplace_back();
  loop.items = std::move(items);
  return &loop;
}

Result<Cycler*> Arena::make_cycler(std::vector<Value> items) {
  PENSTOCK_TRY(spend(kStepsPerObject + std::ssize(items)));
  return &cyclers_.emplace_back(Cycler{std::move(items), 0});
}

Value Arena::from_json(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean: return Value(json.get<bool>());
    case Json::value_t::number_integer: return Value(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      // Python's integers have no limit; above ours a number becomes a float.
      if (json.get<uint64_t>() <= INT64_MAX) return Value(json.get<int64_t>());
      return Value(static_cast<double>(json.get<uint64_t>()));
    case Json::value_t::number_float: return Value(json.get<double>());
    case Json::value_t::string:
      steps_left_ += static_cast<int64_t>(json.get_ref<const std::string&>().size());
      return Value(static_cast<const Text*>(make_text(json.get<std::string>())));
    case Json::value_t::array: {
      List list;
      list.items.reserve(json.size());
      for (const Json& item : json) list.items.push_back(from_json(item));
      return Value(&lists_.emplace_back(std::move(list)));
    }
    case Json::value_t::object: {
      Dict dict;
      dict.items.reserve(json.size());
      for (const auto& [key, value] : json.items()) {
        const Text* name = make_text(key);
        dict.items.emplace_back(Value(name), from_json(value));
      }
      Dict& kept = dicts_.emplace_back(std::move(dict));
      make_index(kept);
      return Value(&kept);
    }
    case Json::value_t::null:
    case Json::value_t::binary:
    case Json::value_t::discarded: break;
  }
  return Value::none();
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return "Undefined";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kText: return "str";
    case Kind::kList:
      switch (value.list().sort) {
        case List::Sort::kList: return "list";
        case List::Sort::kTuple: return "tuple";
        case List::Sort::kGenerator: return "generator";
      }
      break;
    case Kind::kDict: return "dict";
    case Kind::kNamespace: return "Namespace";
    case Kind::kLoop: return "LoopContext";
    case Kind::kCycler: return "Cycler";
    case Kind::kCallable: return "function";
  }
  return "object";
}

Error template_error(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message)};
}

}  // namespace penstock::jinja
