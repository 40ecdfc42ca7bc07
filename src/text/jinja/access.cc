#include "text/jinja/access.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "text/jinja/ast.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/utf8.h"

namespace penstock::jinja {
namespace {

// Python's index of a sequence: negative ones count from the end. Nothing if out of range.
std::optional<int64_t> checked_index(int64_t index, int64_t length) {
  if (index < 0) index += length;
  if (index < 0 || index >= length) return std::nullopt;
  return index;
}

// The code points [first, last) of a text.
std::string_view code_points(const Text& text, int64_t first, int64_t last) {
  const std::string_view bytes = text.bytes;
  if (text.is_ascii()) return bytes.substr(first, last - first);
  const std::string_view rest = bytes.substr(byte_offset(bytes, first));
  return rest.substr(0, byte_offset(rest, last - first));
}

// A slice with its bounds filled in: first, first + step, ... while before `end` in step's
// direction.
struct Range {
  int64_t first;
  int64_t end;
  int64_t step;
};

Result<Range> resolve(const SliceBounds& bounds, int64_t length) {
  const auto is_given = [](const Value* value) { return value != nullptr && !value->is_none(); };
  for (const Value* value : {bounds.start, bounds.stop, bounds.step}) {
    if (is_given(value) && !value->is_integral()) {
      return template_error("slice bounds must be integers");
    }
  }
  const int64_t step = is_given(bounds.step) ? bounds.step->integer() : 1;
  if (step == 0) return template_error("the step of a slice cannot be zero");
  // Where a bound may lie: for a negative step from one before the beginning to the last.
  const int64_t lowest = step > 0 ? 0 : -1;
  const int64_t highest = step > 0 ? length : length - 1;
  const auto place = [&](const Value* value, int64_t otherwise) {
    if (!is_given(value)) return otherwise;
    const int64_t index = value->integer();
    return std::clamp(index < 0 ? index + length : index, lowest, highest);
  };
  return Range{place(bounds.start, step > 0 ? lowest : highest),
               place(bounds.stop, step > 0 ? highest : lowest), step};
}

std::vector<int64_t> indices_of(const Range& range) {
  std::vector<int64_t> indices;
  for (int64_t i = range.first; range.step > 0 ? i < range.end : i > range.end;) {
    indices.push_back(i);
    if (__builtin_add_overflow(i, range.step, &i)) break;
  }
  return indices;
}

Result<Value> slice_text(Arena& arena, const Value& object, const Range& range) {
  const Text& text = object.text();
  PENSTOCK_TRY(arena.spend_bytes(text.bytes.size()));
  if (range.step == 1) {
    const int64_t last = std::max(range.first, range.end);
    return arena.text_like(object, std::string(code_points(text, range.first, last)));
  }
  PENSTOCK_TRY(arena.spend(text.length));
  std::vector<std::string_view> characters;
  for (size_t position = 0; position < text.bytes.size();) {
    const uint32_t bytes = decode_valid_utf8(text.bytes, position).bytes;
    characters.push_back(std::string_view(text.bytes).substr(position, bytes));
    position += bytes;
  }
  std::string taken;
  for (const int64_t i : indices_of(range)) taken += characters[i];
  return arena.text_like(object, std::move(taken));
}

// What a macro tells about itself.
Result<std::optional<Value>> macro_attribute(Arena& arena, const Macro& macro,
                                             std::string_view name) {
  std::optional<Value> value;
  if (name == "name") value = PENSTOCK_TRY(arena.text(macro.name));
  if (name == "caller") value = Value(macro.uses_caller);
  if (name == "catch_kwargs") value = Value(macro.uses_kwargs);
  if (name == "catch_varargs") value = Value(macro.uses_varargs);
  if (name == "arguments") {
    std::vector<Value> names;
    for (const auto& [parameter, otherwise] : macro.parameters) {
      names.push_back(PENSTOCK_TRY(arena.text(parameter)));
    }
    value = PENSTOCK_TRY(arena.list(std::move(names), List::Sort::kTuple));
  }
  return value;
}

}  // namespace

Result<Value> get_attribute(Arena& arena, const Value& object, std::string_view name) {
  if (object.is_undefined()) return undefined_error(object);
  if (object.is(Kind::kNamespace)) {
    const Value* found = object.space().find(name);
    if (found != nullptr) return *found;
  }
  if (object.is(Kind::kLoop)) {
    const auto found = PENSTOCK_TRY(loop_attribute(arena, object.loop(), name));
    if (found) return *found;
  }
  if (object.is(Kind::kCycler) && name == "current") {
    return object.cycler().items[object.cycler().position];
  }
  const bool is_macro =
      object.is(Kind::kCallable) && object.callable().sort == Callable::Sort::kMacro;
  if (is_macro) {
    const auto found = PENSTOCK_TRY(macro_attribute(arena, *object.callable().macro, name));
    if (found) return *found;
  }
  if (object.is(Kind::kList) && object.list().is_group) {
    if (name == "grouper") return object.list().items[0];
    if (name == "list") return object.list().items[1];
  }
  // As in Python, the method `items` of a dict hides its key "items".
  const auto method = PENSTOCK_TRY(bound_method(arena, object, name));
  if (method) return *method;
  if (object.is(Kind::kDict)) {
    PENSTOCK_TRY(arena.spend(1));
    const Value* found = object.dict().find(name);
    if (found != nullptr) return *found;
  }
  return arena.undefined(fmt::format("a {} has no attribute '{}'", type_name(object), name));
}

Result<Value> get_item(Arena& arena, const Value& object, const Value& index) {
  if (object.is_undefined()) return undefined_error(object);
  if (object.is(Kind::kDict)) {
    const Value* found = PENSTOCK_TRY(find_key(arena, object.dict(), index));
    if (found != nullptr) return *found;
  }
  if (index.is_text()) return get_attribute(arena, object, index.text().bytes);
  if (index.is_integral() && is_sequence(object)) {
    const bool is_text = object.is_text();
    const int64_t length = is_text ? object.text().length : std::ssize(object.list().items);
    const auto position = checked_index(index.integer(), length);
    if (position && !is_text) return object.list().items[*position];
    if (position) {
      if (!object.text().is_ascii()) PENSTOCK_TRY(arena.spend_bytes(object.text().bytes.size()));
      return arena.text_like(object,
                             std::string(code_points(object.text(), *position, *position + 1)));
    }
  }
  return arena.undefined(
      fmt::format("a {} has no element {}", type_name(object), PENSTOCK_TRY(python_str(index))));
}

Result<Value> get_slice(Arena& arena, const Value& object, const SliceBounds& bounds) {
  if (object.is_undefined()) return undefined_error(object);
  if (!is_sequence(object)) {
    return template_error(fmt::format("a {} cannot be sliced", type_name(object)));
  }
  const int64_t length = PENSTOCK_TRY(length_of(arena, object));
  const Range range = PENSTOCK_TRY(resolve(bounds, length));
  if (object.is_text()) return slice_text(arena, object, range);
  std::vector<Value> taken;
  for (const int64_t i : indices_of(range)) taken.push_back(object.list().items[i]);
  return arena.list(std::move(taken), object.list().sort);
}

Result<const Value*> find_key(Arena& arena, const Dict& dict, const Value& key) {
  PENSTOCK_TRY(arena.spend(1));
  if (key.is_text()) return dict.find(key.text().bytes);
  PENSTOCK_TRY(arena.spend(static_cast<int64_t>(dict.items.size())));
  for (const auto& [name, value] : dict.items) {
    if (PENSTOCK_TRY(equals(arena, name, key))) return &value;
  }
  return nullptr;
}

Result<void> check_key(const Value& key) {
  const bool is_mutable =
      key.is(Kind::kDict) || (key.is(Kind::kList) && key.list().sort == List::Sort::kList);
  if (!is_mutable) return {};
  return template_error(fmt::format("a {} cannot be a key", type_name(key)));
}

Result<std::vector<Value>> items_of(Arena& arena, const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kUndefined: return items;
    case Kind::kList:
      PENSTOCK_TRY(arena.spend(std::ssize(value.list().items)));
      if (value.list().sort != List::Sort::kGenerator) return value.list().items;
      items.swap(value.list().items);
      return items;
    case Kind::kDict:
      PENSTOCK_TRY(arena.spend(std::ssize(value.dict().items)));
      for (const auto& [key, item] : value.dict().items) items.push_back(key);
      return items;
    case Kind::kText: {
      const std::string_view bytes = value.text().bytes;
      PENSTOCK_TRY(arena.spend(4 * value.text().length));  // a character becomes a text of its own
      for (size_t position = 0; position < bytes.size();) {
        const uint32_t count = decode_valid_utf8(bytes, position).bytes;
        items.push_back(PENSTOCK_TRY(arena.text(std::string(bytes.substr(position, count)))));
        position += count;
      }
      return items;
    }
    default: return template_error(fmt::format("a {} is not iterable", type_name(value)));
  }
}

Result<int64_t> length_of(Arena& arena, const Value& value) {
  PENSTOCK_TRY(arena.spend(1));
  switch (value.kind()) {
    case Kind::kUndefined: return int64_t{0};
    case Kind::kText: return value.text().length;
    case Kind::kDict: return static_cast<int64_t>(value.dict().items.size());
    case Kind::kList:
      if (value.list().sort != List::Sort::kGenerator) {
        return static_cast<int64_t>(value.list().items.size());
      }
      break;
    default: break;
  }
  return template_error(fmt::format("a {} has no length", type_name(value)));
}

bool is_sequence(const Value& value) {
  return value.is_text() || (value.is(Kind::kList) && value.list().sort != List::Sort::kGenerator);
}

Error undefined_error(const Value& value) {
  const std::string* reason = value.reason();
  return template_error(reason == nullptr ? "an undefined value is used" : *reason);
}

}  // namespace penstock::jinja
