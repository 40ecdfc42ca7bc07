// Looking inside values: attributes, items, slices, what can be iterated.
//
// Jinja2 reads a.b as "the attribute b, or else the item b" and a["b"] the other way round. What is
// not there is undefined, which is an error only when it is used.
//
// Errors  kInvalidArgument for looking into an undefined value or into what has no inside.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

Result<Value> get_attribute(Arena& arena, const Value& object, std::string_view name);
Result<Value> get_item(Arena& arena, const Value& object, const Value& index);

// object[start:stop:step]; null for what is left out.
struct SliceBounds {
  const Value* start;
  const Value* stop;
  const Value* step;
};
Result<Value> get_slice(Arena& arena, const Value& object, const SliceBounds& bounds);

// The value that a dict has for this key, or nullptr.
Result<const Value*> find_key(Arena& arena, const Dict& dict, const Value& key);

// An error for what cannot be a key of a dict: lists and dicts.
Result<void> check_key(const Value& key);

// What a `for` goes over: items, keys of a dict, characters of a text. A generator is used up.
Result<std::vector<Value>> items_of(Arena& arena, const Value& value);

// len(value)
Result<int64_t> length_of(Arena& arena, const Value& value);

// Texts, lists and tuples: what has a length and an order.
bool is_sequence(const Value& value);

// The error of using an undefined value.
Error undefined_error(const Value& value);

}  // namespace penstock::jinja
