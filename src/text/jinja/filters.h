// Jinja2's filters (value | name(...)) and tests (value is name(...)) that chat templates use.
//
// Source  Jinja2's documentation of its built-in filters and tests; tojson as the reference
//         implementation of chat templates redefines it: json.dumps, non-ASCII unescaped.
// Errors  kUnsupported for a name that is not here; kInvalidArgument for arguments that do not fit.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/jinja/methods.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

bool is_filter(std::string_view name);
bool is_test(std::string_view name);

Result<Value> apply_filter(Arena& arena, std::string_view name, const Value& input,
                           const Arguments& arguments);

Result<bool> apply_test(Arena& arena, std::string_view name, const Value& input,
                        const Arguments& arguments);

}  // namespace penstock::jinja
