// The filters of filters.h that make a text of a text, or of what prints as one.
//
// Errors  kInvalidArgument, for the template's author: arguments, or a limit of the arena
#pragma once

#include "base/result.h"
#include "text/jinja/methods.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

Result<Value> filter_string(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_safe(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_escape(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_force_escape(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_trim(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_replace(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_indent(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_lower(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_upper(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_capitalize(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_title(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_center(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_truncate(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_word_count(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_url_encode(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_format(Arena& arena, const Value& input, const Arguments& arguments);

}  // namespace penstock::jinja
