// The expressions of a template: what stands in {{ }} and behind the words of {% %}.
//
// Loosest to tightest: inline if, or, and, not, comparisons, + and -, ~, * / // %, **, unary - and
// +, then what follows a value: .name [index] (call) |filter and "is test".
//
// Errors  kCorrupt, naming the line
#pragma once

#include <vector>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/token_stream.h"

namespace penstock::jinja {

class ExpressionParser {
 public:
  using Node = Result<const Expression*>;

  // Both outlive the parser; nodes go to the tree.
  ExpressionParser(TokenStream& stream, Tree& tree) : stream_(stream), tree_(tree) {}

  Node parse();  // one expression
  // One expression, or several with commas between. Without an inline if: what a `for` iterates.
  Node parse_tuple();
  Node parse_tuple_without_if();
  // The filters of a block: name(...) | name(...), applied to what the block printed.
  Node parse_block_filters();

  // The macros that are being parsed; a name that one of them uses is noted in it.
  std::vector<Macro*>& open_macros() { return open_macros_; }

 private:
  Node parse_without_if();
  template <class ParseOne>
  Node parse_list_of(const ParseOne& parse_one);
  Node parse_and();
  Node parse_not();
  Node parse_comparison();
  Node parse_sum();
  Node parse_concatenation();
  Node parse_product();
  Node parse_power();
  Node parse_unary(bool with_filters);
  Node parse_primary();
  Node parse_parenthesis();
  Node parse_list();
  Node parse_dict();
  Node parse_postfix(const Expression* node);
  Node parse_filters(const Expression* node);
  Node parse_attribute(const Expression* object);
  Node parse_subscript(const Expression* object);
  Node parse_filter(const Expression* input);
  void note_name(std::string_view name);
  Node parse_test(const Expression* input);
  Node parse_call(const Expression* callee);

  // Adds what stands in the parentheses of a call to the node.
  Result<void> parse_arguments(Expression& node);
  Result<const Expression*> binary(Operator operation, const Expression* left,
                                   const Expression* right);

  Expression make(Expression::Kind kind, std::vector<const Expression*> children = {}) const;
  // Gives the node to the tree. An error if the tree became too high.
  Node add(Expression node);
  Node add_text(std::string text);
  Node add_constant(Value value);

  TokenStream& stream_;
  Tree& tree_;
  int nesting_ = 0;
  std::vector<Macro*> open_macros_;
};

}  // namespace penstock::jinja
