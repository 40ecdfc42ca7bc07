// What Jinja2's operators do with values: truth, equality, order, arithmetic.
//
// The rules are Python's with Jinja2's undefined added: it prints as nothing, is false, empty when
// iterated, equal only to itself, and an error in everything else.
//
// Errors  kInvalidArgument, with Python's reason, for operands that do not fit.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

bool is_true(const Value& value);

Result<bool> equals(Arena& arena, const Value& left, const Value& right, int depth = 0);

// Negative, zero or positive. For texts, numbers, and lists of them.
Result<int> compare_order(Arena& arena, const Value& left, const Value& right, int depth = 0);

Result<bool> contains(Arena& arena, const Value& container, const Value& item);

Result<bool> compare(Arena& arena, Comparison comparison, const Value& left, const Value& right);
Result<Value> operate(Arena& arena, Operator operation, const Value& left, const Value& right);
Result<Value> negate(Arena& arena, const Value& operand);

}  // namespace penstock::jinja
