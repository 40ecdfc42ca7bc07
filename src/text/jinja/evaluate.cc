// The expressions of interpreter.h.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

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
    case Expression::Kind::kConstant: return node.constant;
    case Expression::Kind::kName: return lookup(node.name);
    case Expression::Kind::kList: return arena_.list(PENSTOCK_TRY(evaluate_all(node, 0)));
    case Expression::Kind::kTuple:
      return arena_.list(PENSTOCK_TRY(evaluate_all(node, 0)), List::Sort::kTuple);
    case Expression::Kind::kDict: return evaluate_dict(node);
    case Expression::Kind::kAttribute:
      return get_attribute(arena_, PENSTOCK_TRY(evaluate_child(node, 0)), node.name);
    case Expression::Kind::kSubscript: {
      const Value object = PENSTOCK_TRY(evaluate_child(node, 0));
      return get_item(arena_, object, PENSTOCK_TRY(evaluate_child(node, 1)));
    }
    case Expression::Kind::kSlice: return evaluate_slice(node);
    case Expression::Kind::kCall: return evaluate_call(node);
    case Expression::Kind::kFilter: {
      const Value input = PENSTOCK_TRY(evaluate_child(node, 0));
      return apply_filter(arena_, node.name, input, PENSTOCK_TRY(evaluate_arguments(node)));
    }
    case Expression::Kind::kTest: {
      const Value input = PENSTOCK_TRY(evaluate_child(node, 0));
      const Arguments arguments = PENSTOCK_TRY(evaluate_arguments(node));
      return Value(PENSTOCK_TRY(apply_test(arena_, node.name, input, arguments)) != node.negated);
    }
    case Expression::Kind::kNegate: return negate(arena_, PENSTOCK_TRY(evaluate_child(node, 0)));
    case Expression::Kind::kPlus:
      return operate(arena_, Operator::kAdd, Value(int64_t{0}),
                     PENSTOCK_TRY(evaluate_child(node, 0)));
    case Expression::Kind::kNot: return Value(!is_true(PENSTOCK_TRY(evaluate_child(node, 0))));
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
    case Expression::Kind::kCompare: return evaluate_comparison(node);
    case Expression::Kind::kCaptured: return captured_;
    case Expression::Kind::kIfElse: break;
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
  PENSTOCK_TRY(add_more_arguments(node, arguments));
  return arguments;
}

Result<void> Interpreter::add_more_arguments(const Expression& node, Arguments& arguments) {
  if (node.more_arguments != nullptr) {
    const Value more = PENSTOCK_TRY(evaluate(*node.more_arguments));
    const std::vector<Value> all = PENSTOCK_TRY(items_of(arena_, more));
    for (const Value& value : all) {
      arguments.positional.push_back(value);
    }
  }
  if (node.more_keywords == nullptr) return {};
  const Value more = PENSTOCK_TRY(evaluate(*node.more_keywords));
  if (!more.is(Kind::kDict)) {
    return template_error(fmt::format("** needs a mapping, not {}", type_name(more)));
  }
  PENSTOCK_TRY(arena_.spend(std::ssize(more.dict().items)));
  const size_t given = arguments.keywords.size();
  for (const auto& [key, value] : more.dict().items) {
    if (!key.is_text()) return template_error("the keys of a mapping after ** must be texts");
    const std::string_view name = key.text().bytes;
    for (size_t i = 0; i < given; ++i) {
      if (arguments.keywords[i].first == name) {
        return template_error(fmt::format("the argument '{}' is given twice", name));
      }
    }
    arguments.keywords.emplace_back(name, value);
  }
  return {};
}

Result<Value> Interpreter::evaluate_call(const Expression& node) {
  const Value* const caller = std::exchange(caller_, nullptr);
  const Value callee = PENSTOCK_TRY(evaluate_child(node, 0));
  Arguments arguments = PENSTOCK_TRY(evaluate_arguments(node));
  if (caller != nullptr) arguments.keywords.emplace_back("caller", *caller);
  line_ = node.line;
  return call(callee, arguments);
}

Result<Value> Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) return undefined_error(callee);
  if (callee.is(Kind::kLoop)) return call_loop(callee.loop(), arguments);
  if (!callee.is(Kind::kCallable)) {
    return template_error(fmt::format("a {} cannot be called", type_name(callee)));
  }
  const Callable& callable = callee.callable();
  switch (callable.sort) {
    case Callable::Sort::kFunction: return call_function(arena_, now_, callable.name, arguments);
    case Callable::Sort::kMethod: return call_method(arena_, callable, arguments);
    case Callable::Sort::kJoiner: return call_joiner(callable, arguments);
    case Callable::Sort::kMacro: break;
  }
  return call_macro(callable, arguments);
}

Result<Value> Interpreter::call_loop(const Loop& loop, const Arguments& arguments) {
  PENSTOCK_TRY(check_arguments("loop", arguments, {"iterable"}, 1));
  if (loop.recursive == nullptr) {
    return template_error("loop() is called, but its 'for' is not marked 'recursive'");
  }
  std::string outer_output;
  outer_output.swap(output_);
  Scope* const outer_scope = scope_;
  scope_ = loop.outer;
  const Result<Flow> flow =
      run_loop(*loop.recursive, *arguments.find(0, "iterable"), loop.depth + 1);
  scope_ = outer_scope;
  output_.swap(outer_output);
  if (!flow) return flow.error();
  return arena_.text(std::move(outer_output));
}

Result<Value> Interpreter::call_macro(const Callable& callable, const Arguments& arguments) {
  Scope& scope = push_scope(callable.scope);
  PENSTOCK_TRY(bind(*callable.macro, arguments, scope));
  std::string printed;
  const Result<Flow> flow = capture(callable.macro->body, scope, printed);
  if (!flow) return flow.error();
  return arena_.text(std::move(printed));
}

// As Jinja2's Macro: parameters by place, then by name; what is left over goes to varargs and
// kwargs if the body uses them, and is an error if not.
Result<void> Interpreter::bind(const Macro& macro, const Arguments& arguments, Scope& scope) {
  const size_t by_place = std::min(arguments.positional.size(), macro.parameters.size());
  std::vector<bool> is_used(arguments.keywords.size(), false);
  const auto take_keyword = [&](std::string_view name) -> const Value* {
    for (size_t i = 0; i < arguments.keywords.size(); ++i) {
      if (arguments.keywords[i].first != name || is_used[i]) continue;
      is_used[i] = true;
      return &arguments.keywords[i].second;
    }
    return nullptr;
  };
  PENSTOCK_TRY(arena_.spend(std::ssize(arguments.keywords) + std::ssize(macro.parameters)));
  std::vector<const Value*> given(macro.parameters.size(), nullptr);
  bool has_caller_parameter = false;
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const std::string& name = macro.parameters[i].first;
    if (name == "caller") has_caller_parameter = true;
    given[i] = i < by_place ? &arguments.positional[i] : take_keyword(name);
  }
  if (macro.uses_caller && !has_caller_parameter) {
    const Value* caller = take_keyword("caller");
    scope.set("caller", caller != nullptr && !caller->is_none()
                            ? *caller
                            : PENSTOCK_TRY(arena_.undefined("there is no caller: the macro was "
                                                            "not called by a call block")));
  }
  std::vector<std::pair<Value, Value>> kwargs;
  for (size_t i = 0; i < arguments.keywords.size(); ++i) {
    if (is_used[i]) continue;
    const auto& [name, value] = arguments.keywords[i];
    if (!macro.uses_kwargs) {
      return template_error(
          fmt::format("{}() has no argument named '{}', or is given it twice", macro.name, name));
    }
    kwargs.emplace_back(PENSTOCK_TRY(arena_.text(std::string(name))), value);
  }
  if (macro.uses_kwargs) scope.set("kwargs", PENSTOCK_TRY(arena_.dict(std::move(kwargs))));
  if (macro.uses_varargs) {
    const auto first = arguments.positional.begin() + static_cast<std::ptrdiff_t>(by_place);
    scope.set("varargs",
              PENSTOCK_TRY(arena_.list({first, arguments.positional.end()}, List::Sort::kTuple)));
  } else if (arguments.positional.size() > by_place) {
    return template_error(fmt::format("{}() takes at most {} arguments, not {}", macro.name,
                                      macro.parameters.size(), arguments.positional.size()));
  }
  // A default may use the parameters before it.
  Scope* const outer = scope_;
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, otherwise] = macro.parameters[i];
    if (given[i] != nullptr) {
      scope.set(name, *given[i]);
    } else if (otherwise != nullptr) {
      scope_ = &scope;
      const Result<Value> value = evaluate(*otherwise);
      scope_ = outer;
      if (!value) return value.error();
      scope.set(name, *value);
    } else {
      scope.set(name, PENSTOCK_TRY(
                          arena_.undefined(fmt::format("the parameter '{}' was not given", name))));
    }
  }
  return {};
}

}  // namespace penstock::jinja
