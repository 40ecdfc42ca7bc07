// The expressions of interpreter.h.
#include <fmt/format.h>

#include "text/jinja/access.h"
#include "text/jinja/filters.h"
#include "text/jinja/functions.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/operators.h"

namespace penstock::jinja {

Result<Value> Interpreter::lookup(const std::string& name) {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    PENSTOCK_TRY(arena_.spend(static_cast<int64_t>(scope->names.size()) / 8));
    const Value* found = scope->find(name);
    if (found != nullptr) return *found;
  }
  return arena_.undefined(fmt::format("'{}' is undefined", name));
}

Result<Value> Interpreter::evaluate(const Expression& node) {
  const Descent descent(depth_);
  PENSTOCK_TRY(check_depth());
  PENSTOCK_TRY(arena_.spend(1));
  line_ = node.line;
  switch (node.kind) {
    case Expression::Kind::kConstant:
      return node.constant;
    case Expression::Kind::kName:
      return lookup(node.name);
    case Expression::Kind::kList:
      return arena_.list(PENSTOCK_TRY(evaluate_all(node, 0)));
    case Expression::Kind::kTuple:
      return arena_.list(PENSTOCK_TRY(evaluate_all(node, 0)), List::Sort::kTuple);
    case Expression::Kind::kDict:
      return evaluate_dict(node);
    case Expression::Kind::kAttribute:
      return get_attribute(arena_, PENSTOCK_TRY(evaluate_child(node, 0)), node.name);
    case Expression::Kind::kSubscript: {
      const Value object = PENSTOCK_TRY(evaluate_child(node, 0));
      return get_item(arena_, object, PENSTOCK_TRY(evaluate_child(node, 1)));
    }
    case Expression::Kind::kSlice:
      return evaluate_slice(node);
    case Expression::Kind::kCall:
      return evaluate_call(node);
    case Expression::Kind::kFilter: {
      const Value input = PENSTOCK_TRY(evaluate_child(node, 0));
      return apply_filter(arena_, node.name, input, PENSTOCK_TRY(evaluate_arguments(node)));
    }
    case Expression::Kind::kTest: {
      const Value input = PENSTOCK_TRY(evaluate_child(node, 0));
      const Arguments arguments = PENSTOCK_TRY(evaluate_arguments(node));
      return Value(PENSTOCK_TRY(apply_test(arena_, node.name, input, arguments)) != node.negated);
    }
    case Expression::Kind::kNegate:
      return negate(arena_, PENSTOCK_TRY(evaluate_child(node, 0)));
    case Expression::Kind::kPlus:
      return operate(arena_, Operator::kAdd, Value(int64_t{0}),
                     PENSTOCK_TRY(evaluate_child(node, 0)));
    case Expression::Kind::kNot:
      return Value(!is_true(PENSTOCK_TRY(evaluate_child(node, 0))));
    case Expression::Kind::kAnd:
    case Expression::Kind::kOr: {
      const Value left = PENSTOCK_TRY(evaluate_child(node, 0));
      const bool decides = is_true(left) == (node.kind == Expression::Kind::kOr);
      return decides ? Result<Value>(left) : evaluate_child(node, 1);
    }
    case Expression::Kind::kOperation: {
      const Value left = PENSTOCK_TRY(evaluate_child(node, 0));
      return operate(arena_, node.operation, left, PENSTOCK_TRY(evaluate_child(node, 1)));
    }
    case Expression::Kind::kCompare:
      return evaluate_comparison(node);
    case Expression::Kind::kIfElse:
      break;
  }
  const bool condition = is_true(PENSTOCK_TRY(evaluate_child(node, 0)));
  if (condition) return evaluate_child(node, 1);
  if (node.children[2] != nullptr) return evaluate_child(node, 2);
  return arena_.undefined("the inline if has no else and its condition is false");
}

Result<Value> Interpreter::evaluate_child(const Expression& node, size_t index) {
  return evaluate(*node.children[index]);
}

Result<std::vector<Value>> Interpreter::evaluate_all(const Expression& node, size_t first) {
  std::vector<Value> values;
  for (size_t i = first; i < node.children.size(); ++i) {
    values.push_back(PENSTOCK_TRY(evaluate_child(node, i)));
  }
  return values;
}

Result<Value> Interpreter::evaluate_dict(const Expression& node) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i < node.children.size(); i += 2) {
    const Value key = PENSTOCK_TRY(evaluate_child(node, i));
    const Value value = PENSTOCK_TRY(evaluate_child(node, i + 1));
    PENSTOCK_TRY(put(items, key, value));
  }
  return arena_.dict(std::move(items));
}

Result<void> Interpreter::put(std::vector<std::pair<Value, Value>>& items, const Value& key,
                              const Value& value) {
  PENSTOCK_TRY(check_key(key));
  for (auto& [known, old] : items) {
    if (PENSTOCK_TRY(equals(arena_, known, key))) {
      old = value;
      return {};
    }
  }
  items.emplace_back(key, value);
  return {};
}

Result<Value> Interpreter::evaluate_slice(const Expression& node) {
  const Value object = PENSTOCK_TRY(evaluate_child(node, 0));
  Value bounds[3];
  const Value* given[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    if (node.children[i + 1] == nullptr) continue;
    bounds[i] = PENSTOCK_TRY(evaluate_child(node, i + 1));
    given[i] = &bounds[i];
  }
  return get_slice(arena_, object, {given[0], given[1], given[2]});
}

Result<Value> Interpreter::evaluate_comparison(const Expression& node) {
  Value left = PENSTOCK_TRY(evaluate_child(node, 0));
  for (size_t i = 0; i < node.comparisons.size(); ++i) {
    const Value right = PENSTOCK_TRY(evaluate_child(node, i + 1));
    if (!PENSTOCK_TRY(compare(arena_, node.comparisons[i], left, right))) return Value(false);
    left = right;
  }
  return Value(true);
}

Result<Arguments> Interpreter::evaluate_arguments(const Expression& node) {
  Arguments arguments;
  arguments.positional = PENSTOCK_TRY(evaluate_all(node, 1));
  for (const auto& [name, value] : node.keywords) {
    arguments.keywords.emplace_back(name, PENSTOCK_TRY(evaluate(*value)));
  }
  return arguments;
}

Result<Value> Interpreter::evaluate_call(const Expression& node) {
  const Value callee = PENSTOCK_TRY(evaluate_child(node, 0));
  const Arguments arguments = PENSTOCK_TRY(evaluate_arguments(node));
  line_ = node.line;
  if (callee.is_undefined()) return undefined_error(callee);
  if (!callee.is(Kind::kCallable)) {
    return template_error(fmt::format("a {} cannot be called", type_name(callee)));
  }
  const Callable& callable = callee.callable();
  switch (callable.sort) {
    case Callable::Sort::kFunction:
      return call_function(arena_, callable.name, arguments);
    case Callable::Sort::kMethod:
      return call_method(arena_, callable, arguments);
    case Callable::Sort::kMacro:
      break;
  }
  return call_macro(callable, arguments);
}

Result<Value> Interpreter::call_macro(const Callable& callable, const Arguments& arguments) {
  const Macro& macro = *callable.macro;
  std::vector<std::string_view> names;
  for (const auto& [name, otherwise] : macro.parameters) names.push_back(name);
  PENSTOCK_TRY(check_arguments(macro.name, arguments, names, 0));
  Scope& scope = push_scope(callable.scope);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, otherwise] = macro.parameters[i];
    const Value* given = arguments.find(i, name);
    if (given != nullptr) {
      scope.set(name, *given);
    } else if (otherwise != nullptr) {
      // A default may use the parameters before it.
      Scope* const caller = scope_;
      scope_ = &scope;
      const Result<Value> value = evaluate(*otherwise);
      scope_ = caller;
      if (!value) return value.error();
      scope.set(name, *value);
    } else {
      scope.set(name, PENSTOCK_TRY(
                          arena_.undefined(fmt::format("the parameter '{}' was not given", name))));
    }
  }
  return capture(macro.body, scope);
}

}  // namespace penstock::jinja
