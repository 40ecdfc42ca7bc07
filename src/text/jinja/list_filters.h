// The filters of filters.h that go over the items of a list, dict or text.
//
// Those that are lazy in Jinja2 give a generator: true even when empty, and gone once iterated.
//
// Errors  kInvalidArgument, for the template's author: arguments, or a limit of the arena
#pragma once

#include "base/result.h"
#include "text/jinja/methods.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

using Filter = Result<Value> (*)(Arena& arena, const Value& input, const Arguments& arguments);

// item.a.b for the attribute "a.b"; a part that is a number is an index.
Result<Value> deep_attribute(Arena& arena, Value item, const Value& attribute);

Result<Value> filter_length(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_list(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_items(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_first(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_last(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_join(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_reverse(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_sort(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_unique(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_batch(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_slice(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_group_by(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_min(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_max(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_dictsort(Arena& arena, const Value& input, const Arguments& arguments);
Result<Value> filter_map(Arena& arena, const Value& input, const Arguments& arguments);

struct Selection {
  bool by_attribute;  // the first argument names an attribute to test instead of the item
  bool keeps;         // items that pass, or those that do not
};
Result<Value> filter_select(Arena& arena, const Value& input, const Arguments& arguments,
                            Selection selection);

}  // namespace penstock::jinja
