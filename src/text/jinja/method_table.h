// What the tables of methods are made of, and how methods read their arguments.
//
// Errors  kInvalidArgument, for the template's author, naming the method
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/methods.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

using Method = Result<Value> (*)(Arena& arena, const Value& self, const Arguments& arguments);

struct NamedMethod {
  // What happens when the text that the method is called on is marked as HTML.
  enum class Markup : uint8_t {
    kNothing,  // the result is no text of it
    kEscapes,  // arguments that are texts are escaped and the result is marked
    kMarks,    // the method escapes what it takes in; the result is marked
  };
  std::string_view name;
  std::vector<std::string_view> parameters;
  size_t required;
  Method call;
  Markup markup = Markup::kNothing;
  bool takes_any = false;  // the method itself looks at what it is given
};

// The methods of texts (text_methods.cc).
const std::vector<NamedMethod>& text_methods();

// The text of an argument, or nothing if it was left out or is none.
Result<std::optional<std::string_view>> optional_text(const Value* argument);
Result<std::string_view> text_argument(const Arguments& arguments, size_t index);
// `otherwise` if the argument was left out.
Result<int64_t> integer_argument(const Value* argument, int64_t otherwise);

}  // namespace penstock::jinja
