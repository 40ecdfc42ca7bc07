#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include "text/jinja/access.h"
#include "text/jinja/functions.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"

namespace penstock::jinja {

Result<std::string> Interpreter::run(const Tree& tree, const Template::Variables& variables) {
  Scope& globals = push_scope(nullptr);
  for (const std::string_view name : kGlobalFunctions) {
    Callable function;
    function.name = name;
    globals.set(name, PENSTOCK_TRY(arena_.callable(function)));
  }
  for (const auto& [name, value] : variables) globals.set(name, arena_.from_json(value));
  scope_ = &push_scope(&globals);
  PENSTOCK_TRY(execute(tree.body));
  return std::move(output_);
}

Result<void> Interpreter::check_depth() const {
  if (depth_ <= kRunDepthMax) return {};
  return template_error("the template nests too deep (a macro may call itself without an end)");
}

void Interpreter::pop_scope(const Scope& scope) {
  if (&scopes_.back() == &scope && !scope.is_captured) scopes_.pop_back();
}

Result<void> Interpreter::write(std::string_view text) {
  PENSTOCK_TRY(arena_.spend_bytes(text.size()));
  if (output_.size() + text.size() > kTextBytesMax) {
    return template_error("the template makes more than 16 MiB of this conversation");
  }
  output_ += text;
  return {};
}

Result<void> Interpreter::keep_scopes() {
  constexpr int64_t kStepsPerScope = 8;  // it stays in memory to the end, with its names
  for (Scope* scope = scope_; scope != nullptr && !scope->is_captured; scope = scope->parent) {
    scope->is_captured = true;
    PENSTOCK_TRY(arena_.spend(kStepsPerScope));
  }
  return {};
}

Result<Interpreter::Flow> Interpreter::capture(const Block& block, Scope& scope,
                                               std::string& printed) {
  std::string outer_output;
  outer_output.swap(output_);
  Scope* const outer_scope = scope_;
  scope_ = &scope;
  const Result<Flow> flow = execute(block);
  scope_ = outer_scope;
  pop_scope(scope);
  output_.swap(outer_output);
  printed.swap(outer_output);
  return flow;
}

Result<Interpreter::Flow> Interpreter::execute(const Block& block) {
  const Descent descent(depth_);
  PENSTOCK_TRY(check_depth());
  for (const Statement* statement : block) {
    const Flow flow = PENSTOCK_TRY(execute(*statement));
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Result<Interpreter::Flow> Interpreter::execute(const Statement& node) {
  line_ = node.line;
  PENSTOCK_TRY(arena_.spend(1));
  switch (node.kind) {
    case Statement::Kind::kText: PENSTOCK_TRY(write(node.text)); return Flow::kOn;
    case Statement::Kind::kOutput: {
      const Value value = PENSTOCK_TRY(evaluate(*node.value));
      const std::string text = PENSTOCK_TRY(python_str(value));
      PENSTOCK_TRY(write(text));
      return Flow::kOn;
    }
    case Statement::Kind::kIf: return execute_if(node);
    case Statement::Kind::kFor: return execute_for(node);
    case Statement::Kind::kSet: {
      const Value value = PENSTOCK_TRY(evaluate(*node.value));
      PENSTOCK_TRY(assign(node.target, value, *scope_));
      return Flow::kOn;
    }
    case Statement::Kind::kSetBlock: return execute_set_block(node);
    case Statement::Kind::kMacro:
      scope_->set(node.macro.name, PENSTOCK_TRY(make_macro(node.macro)));
      return Flow::kOn;
    case Statement::Kind::kCall: return execute_call(node);
    case Statement::Kind::kFilter: return execute_filter(node);
    case Statement::Kind::kWith: return execute_with(node);
    case Statement::Kind::kScope: {
      Scope* const outer = scope_;
      scope_ = &push_scope(outer);
      const Result<Flow> flow = execute(node.body);
      pop_scope(*scope_);
      scope_ = outer;
      return flow;
    }
    case Statement::Kind::kBreak: return Flow::kBreak;
    case Statement::Kind::kContinue: break;
  }
  return Flow::kContinue;
}

Result<Interpreter::Flow> Interpreter::execute_set_block(const Statement& node) {
  std::string printed;
  const Flow flow = PENSTOCK_TRY(capture(node.body, push_scope(scope_), printed));
  if (flow != Flow::kOn) return flow;
  Value value = PENSTOCK_TRY(arena_.text(std::move(printed)));
  if (node.value != nullptr) {
    captured_ = value;
    value = PENSTOCK_TRY(evaluate(*node.value));
  }
  PENSTOCK_TRY(assign(node.target, value, *scope_));
  return Flow::kOn;
}

Result<Interpreter::Flow> Interpreter::execute_filter(const Statement& node) {
  std::string printed;
  Scope& inner = push_scope(scope_);
  const Flow flow = PENSTOCK_TRY(capture(node.body, inner, printed));
  if (flow != Flow::kOn) return flow;
  captured_ = PENSTOCK_TRY(arena_.text(std::move(printed)));
  const Value filtered = PENSTOCK_TRY(evaluate(*node.value));
  const std::string text = PENSTOCK_TRY(python_str(filtered));
  PENSTOCK_TRY(write(text));
  return Flow::kOn;
}

Result<Interpreter::Flow> Interpreter::execute_with(const Statement& node) {
  // The values know nothing of each other's names.
  std::vector<Value> values;
  for (const auto& [target, value] : node.bindings) {
    values.push_back(PENSTOCK_TRY(evaluate(*value)));
  }
  Scope* const outer = scope_;
  Scope& inner = push_scope(outer);
  for (size_t i = 0; i < values.size(); ++i) {
    PENSTOCK_TRY(assign(node.bindings[i].first, values[i], inner));
  }
  scope_ = &inner;
  const Result<Flow> flow = execute(node.body);
  pop_scope(inner);
  scope_ = outer;
  return flow;
}

Result<Value> Interpreter::make_macro(const Macro& macro) {
  Callable callable;
  callable.sort = Callable::Sort::kMacro;
  callable.name = macro.name;
  callable.macro = &macro;
  callable.scope = scope_;
  PENSTOCK_TRY(keep_scopes());
  return arena_.callable(callable);
}

Result<Interpreter::Flow> Interpreter::execute_call(const Statement& node) {
  const Value caller = PENSTOCK_TRY(make_macro(node.macro));
  caller_ = &caller;
  const Value result = PENSTOCK_TRY(evaluate(*node.value));
  const std::string text = PENSTOCK_TRY(python_str(result));
  PENSTOCK_TRY(write(text));
  return Flow::kOn;
}

Result<Interpreter::Flow> Interpreter::execute_if(const Statement& node) {
  for (const auto& [condition, body] : node.branches) {
    if (is_true(PENSTOCK_TRY(evaluate(*condition)))) return execute(body);
  }
  return execute(node.otherwise);
}

Result<Interpreter::Flow> Interpreter::execute_for(const Statement& node) {
  return run_loop(node, PENSTOCK_TRY(evaluate(*node.value)), 0);
}

Result<Interpreter::Flow> Interpreter::run_loop(const Statement& node, const Value& iterated,
                                                int64_t depth) {
  std::vector<Value> items = PENSTOCK_TRY(items_of(arena_, iterated));
  if (node.condition != nullptr) {
    items = PENSTOCK_TRY(select_items(node, items));
  }
  if (items.empty()) {
    Scope* const outer = scope_;
    scope_ = &push_scope(outer);
    const Result<Flow> flow = execute(node.otherwise);
    pop_scope(*scope_);
    scope_ = outer;
    return flow;
  }

  Loop& loop = *PENSTOCK_TRY(arena_.make_loop(std::move(items)));
  loop.depth = depth;
  if (node.is_recursive) {
    loop.recursive = &node;
    loop.outer = scope_;
    PENSTOCK_TRY(keep_scopes());
  }
  Scope* const outer = scope_;
  Result<Flow> flow = Flow::kOn;
  for (loop.index = 0; loop.index < loop.items.size(); ++loop.index) {
    flow = execute_turn(node, loop, outer);
    if (!flow || *flow == Flow::kBreak) break;
  }
  scope_ = outer;
  if (!flow) return flow.error();
  return Flow::kOn;
}

Result<Interpreter::Flow> Interpreter::execute_turn(const Statement& node, Loop& loop,
                                                    Scope* outer) {
  PENSTOCK_TRY(arena_.spend(1));
  Scope& scope = push_scope(outer);
  scope.set("loop", Value(&loop));
  PENSTOCK_TRY(assign(node.target, loop.items[loop.index], scope));
  scope_ = &scope;
  const Result<Flow> flow = execute(node.body);
  pop_scope(scope);
  return flow;
}

Result<std::vector<Value>> Interpreter::select_items(const Statement& node,
                                                     const std::vector<Value>& items) {
  Scope* const outer = scope_;
  Scope& inner = push_scope(outer);
  std::vector<Value> kept;
  for (const Value& item : items) {
    PENSTOCK_TRY(assign(node.target, item, inner));
    scope_ = &inner;
    const Result<Value> condition = evaluate(*node.condition);
    scope_ = outer;
    if (!condition) return condition.error();
    if (is_true(*condition)) kept.push_back(item);
  }
  pop_scope(inner);
  return kept;
}

Result<void> Interpreter::assign(const Target& target, const Value& value, Scope& scope) {
  PENSTOCK_TRY(arena_.spend(1 + static_cast<int64_t>(scope.names.size()) / 8));
  if (!target.attribute.empty()) return set_member(target, value);
  if (!target.is_tuple) {
    scope.set(target.name, value);
    return {};
  }
  if (value.is_undefined()) return undefined_error(value);
  const std::vector<Value> parts = PENSTOCK_TRY(items_of(arena_, value));
  if (parts.size() != target.parts.size()) {
    return template_error(fmt::format("{} names for {} values", target.parts.size(), parts.size()));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    PENSTOCK_TRY(assign(target.parts[i], parts[i], scope));
  }
  return {};
}

Result<void> Interpreter::set_member(const Target& target, const Value& value) {
  const Value object = PENSTOCK_TRY(lookup(target.name));
  if (!object.is(Kind::kNamespace)) {
    return template_error(fmt::format("'{}' is a {}; only a namespace's attributes can be set",
                                      target.name, type_name(object)));
  }
  object.space().set(target.attribute, value);
  return {};
}

}  // namespace penstock::jinja
