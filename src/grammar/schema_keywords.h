// The keywords of JSON schemas: which are obeyed, which say nothing, which types they are about.
//
// Threads  plain functions
// Errors   types_of(): kInvalidArgument for what is no type
// Source   JSON Schema 2020-12 and draft 7
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "grammar/schema_view.h"

namespace penstock {

// By the readers of a view, or by the view itself.
bool is_obeyed_keyword(std::string_view key);
// Says nothing about which values are valid.
bool is_annotation(std::string_view key);
// Limits values of one type.
bool is_limit(std::string_view key);

bool is_value_of(const Json& value, SchemaType type);
// The types that "type" lists; without one, what the other keywords are about; none: any.
Result<std::vector<SchemaType>> types_of(const Json& schema, const std::string& where);

// Whether there is more than annotations and definitions.
bool says_something(const Json& schema);
Json without(const Json& schema, std::initializer_list<std::string_view> keys);

}  // namespace penstock
