// The filters of filters.h that make numbers, or print one.
//
// Errors  kInvalidArgument, for the template's author: arguments
#pragma once

#include "base/result.h"
#include "text/jinja/methods.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

Result<Value> filter_int(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_float(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_abs(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_round(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_sum(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_file_size(Arena& arena, const Value& input, const Arguments& arguments);

}  // namespace penstock::jinja
