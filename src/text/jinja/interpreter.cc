#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include <deque>

#include "text/jinja/access.h"
#include "text/jinja/filters.h"
#include "text/jinja/functions.h"
#include "text/jinja/operators.h"
#include "text/jinja/parser.h"
#include "text/jinja/python_text.h"

namespace penstock::jinja {

// The names that one block sees, and the block around it.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> names;
  bool is_captured = false;  // a macro was defined here, so the names outlive the block

  Value* find(std::string_view name) {
    for (auto& [key, value] : names) {
      if (key == name) return &value;
    }
    return nullptr;
  }
  void set(std::string_view name, Value value) {
    Value* known = find(name);
    if (known != nullptr) {
      *known = value;
    } else {
      names.emplace_back(name, value);
    }
  }
};

namespace {

enum class Flow : uint8_t { kOn, kBreak, kContinue };

class Interpreter {
 public:
  Result<std::string> run(const Tree& tree, const Template::Variables& variables) {
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

  int line() const { return line_; }

 private:
  // Counts how deep we are in the recursion of this class.
  class Descent {
   public:
    explicit Descent(int& depth) : depth_(depth) { ++depth_; }
    ~Descent() { --depth_; }
    Descent(const Descent&) = delete;
    Descent& operator=(const Descent&) = delete;

   private:
    int& depth_;
  };

  Result<void> check_depth() const {
    if (depth_ <= kRunDepthMax) return {};
    return template_error("the template nests too deep (a macro may call itself without an end)");
  }

  Scope& push_scope(Scope* parent) { return scopes_.emplace_back(Scope{parent, {}}); }

  // Scopes end in the order opposite to that in which they began.
  void pop_scope(const Scope& scope) {
    if (&scopes_.back() == &scope && !scope.is_captured) scopes_.pop_back();
  }

  Result<void> write(std::string_view text) {
    PENSTOCK_TRY(arena_.spend_bytes(text.size()));
    if (output_.size() + text.size() > kTextBytesMax) {
      return template_error("the template prints more than 16 MiB");
    }
    output_ += text;
    return {};
  }

  // Runs a block with its own names and gives back what it printed.
  Result<Value> capture(const Block& block, Scope& scope) {
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

  // --- statements ---

  Result<Flow> execute(const Block& block) {
    const Descent descent(depth_);
    PENSTOCK_TRY(check_depth());
    for (const Statement* statement : block) {
      const Flow flow = PENSTOCK_TRY(execute(*statement));
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  Result<Flow> execute(const Statement& node) {
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

  Result<Flow> execute_set(const Statement& node) {
    const Value value = PENSTOCK_TRY(evaluate(*node.value));
    PENSTOCK_TRY(assign(node.targets, value, *scope_));
    return Flow::kOn;
  }

  Result<Flow> execute_macro(const Statement& node) {
    Callable macro;
    macro.sort = Callable::Sort::kMacro;
    macro.name = node.macro.name;
    macro.macro = &node.macro;
    macro.scope = scope_;
    for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) scope->is_captured = true;
    scope_->set(node.macro.name, PENSTOCK_TRY(arena_.callable(macro)));
    return Flow::kOn;
  }

  Result<Flow> execute_if(const Statement& node) {
    for (const auto& [condition, body] : node.branches) {
      if (is_true(PENSTOCK_TRY(evaluate(*condition)))) return execute(body);
    }
    return execute(node.otherwise);
  }

  Result<Flow> execute_for(const Statement& node) {
    const Value iterated = PENSTOCK_TRY(evaluate(*node.value));
    std::vector<Value> items = PENSTOCK_TRY(items_of(arena_, iterated));
    if (node.condition != nullptr) {
      items = PENSTOCK_TRY(filter_items_of_loop(node, std::move(items)));
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

  // Each turn has names of its own: what one sets, the next does not see.
  Result<Flow> execute_turn(const Statement& node, const Loop& loop, Scope* outer) {
    PENSTOCK_TRY(arena_.spend(1));
    Scope& scope = push_scope(outer);
    scope.set("loop", Value(&loop));
    PENSTOCK_TRY(assign(node.targets, loop.items[loop.index], scope));
    scope_ = &scope;
    const Result<Flow> flow = execute(node.body);
    pop_scope(scope);
    return flow;
  }

  Result<std::vector<Value>> filter_items_of_loop(const Statement& node, std::vector<Value> items) {
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

  Result<void> assign(const std::vector<std::string>& targets, const Value& value, Scope& scope) {
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

  Result<void> set_member(const Statement& node) {
    const Value object = PENSTOCK_TRY(lookup(node.targets[0]));
    const Value value = PENSTOCK_TRY(evaluate(*node.value));
    if (!object.is(Kind::kNamespace)) {
      return template_error(fmt::format("'{}' is a {}; only a namespace's attributes can be set",
                                        node.targets[0], type_name(object)));
    }
    object.space().set(node.targets[1], value);
    return {};
  }

  // --- expressions ---

  Result<Value> lookup(const std::string& name) {
    for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
      PENSTOCK_TRY(arena_.spend(static_cast<int64_t>(scope->names.size()) / 8));
      const Value* found = scope->find(name);
      if (found != nullptr) return *found;
    }
    return arena_.undefined(fmt::format("'{}' is undefined", name));
  }

  Result<Value> evaluate(const Expression& node) {
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

  Result<Value> evaluate_child(const Expression& node, size_t index) {
    return evaluate(*node.children[index]);
  }

  Result<std::vector<Value>> evaluate_all(const Expression& node, size_t first) {
    std::vector<Value> values;
    for (size_t i = first; i < node.children.size(); ++i) {
      values.push_back(PENSTOCK_TRY(evaluate_child(node, i)));
    }
    return values;
  }

  Result<Value> evaluate_dict(const Expression& node) {
    std::vector<std::pair<Value, Value>> items;
    for (size_t i = 0; i < node.children.size(); i += 2) {
      const Value key = PENSTOCK_TRY(evaluate_child(node, i));
      const Value value = PENSTOCK_TRY(evaluate_child(node, i + 1));
      PENSTOCK_TRY(put(items, key, value));
    }
    return arena_.dict(std::move(items));
  }

  // A key that is there already keeps its place and gets the new value.
  Result<void> put(std::vector<std::pair<Value, Value>>& items, const Value& key,
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

  Result<Value> evaluate_slice(const Expression& node) {
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

  // a < b < c is a < b and b < c, with b evaluated once.
  Result<Value> evaluate_comparison(const Expression& node) {
    Value left = PENSTOCK_TRY(evaluate_child(node, 0));
    for (size_t i = 0; i < node.comparisons.size(); ++i) {
      const Value right = PENSTOCK_TRY(evaluate_child(node, i + 1));
      if (!PENSTOCK_TRY(compare(arena_, node.comparisons[i], left, right))) return Value(false);
      left = right;
    }
    return Value(true);
  }

  // The arguments of a call, filter or test: all children but the first.
  Result<Arguments> evaluate_arguments(const Expression& node) {
    Arguments arguments;
    arguments.positional = PENSTOCK_TRY(evaluate_all(node, 1));
    for (const auto& [name, value] : node.keywords) {
      arguments.keywords.emplace_back(name, PENSTOCK_TRY(evaluate(*value)));
    }
    return arguments;
  }

  Result<Value> evaluate_call(const Expression& node) {
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

  Result<Value> call_macro(const Callable& callable, const Arguments& arguments) {
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
        scope.set(
            name,
            PENSTOCK_TRY(arena_.undefined(fmt::format("the parameter '{}' was not given", name))));
      }
    }
    return capture(macro.body, scope);
  }

  Arena arena_;
  std::deque<Scope> scopes_;
  Scope* scope_ = nullptr;
  std::string output_;
  int depth_ = 0;
  int line_ = 1;
};

}  // namespace

Result<Template> Template::compile(std::string_view source) {
  if (source.size() > kSourceBytesMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("line 1: the template has {} bytes; at most {} are read",
                             source.size(), kSourceBytesMax)};
  }
  return Template(PENSTOCK_TRY(parse(source)));
}

Result<std::string> Template::render(const Variables& variables) const {
  Interpreter interpreter;
  Result<std::string> text = interpreter.run(tree_, variables);
  if (!text) return text.error().with_context(fmt::format("line {}", interpreter.line()));
  return text;
}

}  // namespace penstock::jinja
