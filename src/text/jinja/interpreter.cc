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
    return template_error("the template prints more than 16 MiB");
  }
  output_ += text;
  return {};
}

Result<Value> Interpreter::capture(const Block& block, Scope& scope) {
  std::string outer_output;
  outer_output.swap(output_);
  Scope* const outer_scope = scope_;
  scope_ = &scope;
  const Result<Flow> flow = execute(block);
  scope_ = outer_scope;
  pop_scope(scope);
  output_.swap(outer_output);
  if (!flow) return flow.error();
  return arena_.text(std::move(outer_output));
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
    case Statement::Kind::kText:
      PENSTOCK_TRY(write(node.text));
      return Flow::kOn;
    case Statement::Kind::kOutput: {
      const Value value = PENSTOCK_TRY(evaluate(*node.value));
      const std::string text = PENSTOCK_TRY(python_str(value));
      PENSTOCK_TRY(write(text));
      return Flow::kOn;
    }
    case Statement::Kind::kIf:
      return execute_if(node);
    case Statement::Kind::kFor:
      return execute_for(node);
    case Statement::Kind::kSet:
      return execute_set(node);
    case Statement::Kind::kSetBlock:
      scope_->set(node.targets[0], PENSTOCK_TRY(capture(node.body, push_scope(scope_))));
      return Flow::kOn;
    case Statement::Kind::kSetMember:
      PENSTOCK_TRY(set_member(node));
      return Flow::kOn;
    case Statement::Kind::kMacro:
      return execute_macro(node);
    case Statement::Kind::kScope: {
      Scope* const outer = scope_;
      scope_ = &push_scope(outer);
      const Result<Flow> flow = execute(node.body);
      pop_scope(*scope_);
      scope_ = outer;
      return flow;
    }
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      break;
  }
  return Flow::kContinue;
}

Result<Interpreter::Flow> Interpreter::execute_set(const Statement& node) {
  const Value value = PENSTOCK_TRY(evaluate(*node.value));
  PENSTOCK_TRY(assign(node.targets, value, *scope_));
  return Flow::kOn;
}

Result<Interpreter::Flow> Interpreter::execute_macro(const Statement& node) {
  Callable macro;
  macro.sort = Callable::Sort::kMacro;
  macro.name = node.macro.name;
  macro.macro = &node.macro;
  macro.scope = scope_;
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) scope->is_captured = true;
  scope_->set(node.macro.name, PENSTOCK_TRY(arena_.callable(macro)));
  return Flow::kOn;
}

Result<Interpreter::Flow> Interpreter::execute_if(const Statement& node) {
  for (const auto& [condition, body] : node.branches) {
    if (is_true(PENSTOCK_TRY(evaluate(*condition)))) return execute(body);
  }
  return execute(node.otherwise);
}

Result<Interpreter::Flow> Interpreter::execute_for(const Statement& node) {
  const Value iterated = PENSTOCK_TRY(evaluate(*node.value));
  std::vector<Value> items = PENSTOCK_TRY(items_of(arena_, iterated));
  if (node.condition != nullptr) {
    items = PENSTOCK_TRY(select_items(node, items));
  }
  if (items.empty()) return execute(node.otherwise);

  Loop& loop = *PENSTOCK_TRY(arena_.make_loop(std::move(items)));
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

Result<Interpreter::Flow> Interpreter::execute_turn(const Statement& node, const Loop& loop,
                                                    Scope* outer) {
  PENSTOCK_TRY(arena_.spend(1));
  Scope& scope = push_scope(outer);
  scope.set("loop", Value(&loop));
  PENSTOCK_TRY(assign(node.targets, loop.items[loop.index], scope));
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
    PENSTOCK_TRY(assign(node.targets, item, inner));
    scope_ = &inner;
    const Result<Value> condition = evaluate(*node.condition);
    scope_ = outer;
    if (!condition) return condition.error();
    if (is_true(*condition)) kept.push_back(item);
  }
  pop_scope(inner);
  return kept;
}

Result<void> Interpreter::assign(const std::vector<std::string>& targets, const Value& value,
                                 Scope& scope) {
  PENSTOCK_TRY(arena_.spend(static_cast<int64_t>(scope.names.size()) / 8));
  if (targets.size() == 1) {
    scope.set(targets[0], value);
    return {};
  }
  if (value.is_undefined()) return undefined_error(value);
  const std::vector<Value> parts = PENSTOCK_TRY(items_of(arena_, value));
  if (parts.size() != targets.size()) {
    return template_error(fmt::format("{} names for {} values", targets.size(), parts.size()));
  }
  for (size_t i = 0; i < parts.size(); ++i) scope.set(targets[i], parts[i]);
  return {};
}

Result<void> Interpreter::set_member(const Statement& node) {
  const Value object = PENSTOCK_TRY(lookup(node.targets[0]));
  const Value value = PENSTOCK_TRY(evaluate(*node.value));
  if (!object.is(Kind::kNamespace)) {
    return template_error(fmt::format("'{}' is a {}; only a namespace's attributes can be set",
                                      node.targets[0], type_name(object)));
  }
  object.space().set(node.targets[1], value);
  return {};
}

}  // namespace penstock::jinja
