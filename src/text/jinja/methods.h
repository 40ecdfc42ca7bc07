// The methods of texts, lists and dicts that templates may call, and what `loop` offers.
//
// Only methods that change nothing: the reference runs templates in a sandbox that refuses the
// rest.
//
// Errors  kInvalidArgument, for the template's author: arguments, or a limit of the arena
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

// What a call hands over.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> keywords;

  // The argument at this place or of this name; nullptr if it was not given.
  const Value* find(size_t index, std::string_view name) const;
};

// The arguments of a function as it declares them. Says what was given too much or twice, and what
// has no value though the first `required` must have one. `function` is its name for the message.
Result<void> check_arguments(std::string_view function, const Arguments& arguments,
                             const std::vector<std::string_view>& names, size_t required);

// object.name as something that can be called, if the object's type has such a method.
Result<std::optional<Value>> bound_method(Arena& arena, const Value& object, std::string_view name);

// Calls what bound_method() made.
Result<Value> call_method(Arena& arena, const Callable& method, const Arguments& arguments);

// loop.index and its kin.
Result<std::optional<Value>> loop_attribute(Arena& arena, const Loop& loop, std::string_view name);

}  // namespace penstock::jinja
