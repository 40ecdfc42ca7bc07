// Walks a template's tree: executes statements, evaluates expressions, keeps the names.
//
// One Interpreter is one rendering. Its statements stand in interpreter.cc, its expressions in
// evaluate.cc. What it computes with lives in its Arena, which also limits how much it may do.
//
// Errors  kInvalidArgument, kUnsupported; without the line, which line() knows afterwards.
// See also template.h, for whom this is.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/methods.h"
#include "text/jinja/strftime.h"
#include "text/jinja/template.h"
#include "text/jinja/value.h"

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

class Interpreter {
 public:
  explicit Interpreter(const LocalTime& now) : now_(now) {}

  // Renders the tree. Once.
  Result<std::string> run(const Tree& tree, const Template::Variables& variables);

  // Where the interpreter is, or was when it stopped.
  int line() const { return line_; }

 private:
  enum class Flow : uint8_t { kOn, kBreak, kContinue };

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
  Result<void> check_depth() const;

  Scope& push_scope(Scope* parent) { return scopes_.emplace_back(Scope{parent, {}, false}); }
  // Scopes end in the order opposite to that in which they began.
  void pop_scope(const Scope& scope);

  // Keeps the names that something made here may still need after their blocks have ended.
  Result<void> keep_scopes();

  Result<void> write(std::string_view text);
  // Runs a block with its own names; what it prints goes to `printed`.
  Result<Flow> capture(const Block& block, Scope& scope, std::string& printed);

  Result<Flow> execute(const Block& block);
  Result<Flow> execute(const Statement& node);
  Result<Flow> execute_if(const Statement& node);
  Result<Flow> execute_for(const Statement& node);
  // One round of a loop over these items, at some depth of a recursion.
  Result<Flow> run_loop(const Statement& node, const Value& iterated, int64_t depth);
  // Each turn has names of its own: what one sets, the next does not see.
  Result<Flow> execute_turn(const Statement& node, Loop& loop, Scope* outer);
  // The items for which the loop's condition holds.
  Result<std::vector<Value>> select_items(const Statement& node, const std::vector<Value>& items);
  Result<Flow> execute_set_block(const Statement& node);
  Result<Flow> execute_filter(const Statement& node);
  Result<Flow> execute_with(const Statement& node);
  Result<Value> make_macro(const Macro& macro);
  Result<Flow> execute_call(const Statement& node);
  Result<void> set_member(const Target& target, const Value& value);
  Result<void> assign(const Target& target, const Value& value, Scope& scope);

  Result<Value> lookup(const std::string& name);
  Result<Value> evaluate(const Expression& node);
  Result<Value> evaluate_child(const Expression& node, size_t index);
  Result<std::vector<Value>> evaluate_all(const Expression& node, size_t first);
  Result<Value> evaluate_dict(const Expression& node);
  // A key that is there already keeps its place and gets the new value.
  Result<void> put(std::vector<std::pair<Value, Value>>& items, const Value& key,
                   const Value& value);
  Result<Value> evaluate_slice(const Expression& node);
  // a < b < c is a < b and b < c, with b evaluated once.
  Result<Value> evaluate_comparison(const Expression& node);
  // The arguments of a call, filter or test: all children but the first.
  Result<Arguments> evaluate_arguments(const Expression& node);
  Result<void> add_more_arguments(const Expression& node, Arguments& arguments);
  Result<Value> evaluate_call(const Expression& node);
  Result<Value> call(const Value& callee, const Arguments& arguments);
  // loop(items), the next level of a recursive loop: what it prints.
  Result<Value> call_loop(const Loop& loop, const Arguments& arguments);
  Result<Value> call_macro(const Callable& callable, const Arguments& arguments);
  // The parameters' values, then caller, kwargs and varargs where the macro uses them.
  Result<void> bind(const Macro& macro, const Arguments& arguments, Scope& scope);

  const LocalTime now_;
  Arena arena_;
  Value captured_;                 // what the block printed whose filters are being evaluated
  const Value* caller_ = nullptr;  // what the call that is being evaluated hands over besides
  std::deque<Scope> scopes_;
  Scope* scope_ = nullptr;
  std::string output_;
  int depth_ = 0;
  int line_ = 1;
};

}  // namespace penstock::jinja
