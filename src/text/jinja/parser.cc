#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string>

#include "text/jinja/expression_parser.h"
#include "text/jinja/token_stream.h"

namespace penstock::jinja {
namespace {

using StatementKind = Statement::Kind;
using Names = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens)
      : stream_(std::move(tokens)), expressions_(stream_, tree_) {}

  Result<Tree> run() {
    tree_.body = PENSTOCK_TRY(parse_block({}));
    return std::move(tree_);
  }

 private:
  // Statements up to one of the tags in `ends`, whose {% is taken; its name is not. Without ends,
  // to the end of the template.
  Result<Block> parse_block(Names ends) {
    if (nesting_ >= kTreeDepthMax) return stream_.error("blocks are nested too deep");
    ++nesting_;
    Block block;
    for (;;) {
      if (stream_.at(Token::Kind::kEnd)) {
        if (ends.size() > 0) return stream_.unexpected(fmt::format("'{}'", *(ends.end() - 1)));
        break;
      }
      if (stream_.at(Token::Kind::kBlockBegin)) {
        stream_.take();
        const bool is_end = std::any_of(
            ends.begin(), ends.end(), [&](std::string_view name) { return stream_.at_name(name); });
        if (is_end) break;
        block.push_back(PENSTOCK_TRY(parse_tag()));
      } else {
        block.push_back(PENSTOCK_TRY(parse_plain()));
      }
    }
    --nesting_;
    return block;
  }

  Result<const Statement*> parse_plain() {
    if (stream_.at(Token::Kind::kText)) {
      Statement node = make(StatementKind::kText);
      node.text = stream_.take().text;
      return add(std::move(node));
    }
    PENSTOCK_TRY(stream_.expect(Token::Kind::kOutputBegin, "text or a tag"));
    Statement node = make(StatementKind::kOutput);
    node.value = PENSTOCK_TRY(expressions_.parse_tuple());
    PENSTOCK_TRY(stream_.expect(Token::Kind::kOutputEnd, "'}}'"));
    return add(std::move(node));
  }

  Result<const Statement*> parse_tag() {
    const std::string name = PENSTOCK_TRY(stream_.expect_any_name("a tag's name"));
    if (name == "if") return parse_if();
    if (name == "for") return parse_for();
    if (name == "set") return parse_set();
    if (name == "macro") return parse_macro();
    if (name == "call") return parse_call();
    if (name == "filter") return parse_filter();
    if (name == "with") return parse_with();
    if (name == "print") return parse_print();
    if (name == "generation") return parse_generation();
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return stream_.error(fmt::format("'{}' outside of a loop", name));
      Statement node = make(name == "break" ? StatementKind::kBreak : StatementKind::kContinue);
      PENSTOCK_TRY(end_tag());
      return add(std::move(node));
    }
    if (name.starts_with("end") || name == "else" || name == "elif") {
      return stream_.error(fmt::format("'{}' closes nothing that was opened", name));
    }
    return stream_.unsupported(fmt::format("the tag '{}' is not supported", name));
  }

  Result<const Statement*> parse_if() {
    Statement node = make(StatementKind::kIf);
    do {
      const Expression* condition = PENSTOCK_TRY(expressions_.parse_tuple_without_if());
      PENSTOCK_TRY(end_tag());
      Block body = PENSTOCK_TRY(parse_block({"elif", "else", "endif"}));
      node.branches.emplace_back(condition, std::move(body));
    } while (stream_.take_name("elif"));
    if (stream_.take_name("else")) {
      PENSTOCK_TRY(end_tag());
      node.otherwise = PENSTOCK_TRY(parse_block({"endif"}));
    }
    PENSTOCK_TRY(end_block("endif"));
    return add(std::move(node));
  }

  Result<const Statement*> parse_for() {
    Statement node = make(StatementKind::kFor);
    node.target = PENSTOCK_TRY(parse_target());
    if (!stream_.take_name("in")) return stream_.unexpected("'in'");
    node.value = PENSTOCK_TRY(expressions_.parse_tuple_without_if());
    if (stream_.take_name("if")) node.condition = PENSTOCK_TRY(expressions_.parse());
    node.is_recursive = stream_.take_name("recursive");
    PENSTOCK_TRY(end_tag());
    ++loops_;
    node.body = PENSTOCK_TRY(parse_block({"else", "endfor"}));
    --loops_;
    if (stream_.take_name("else")) {
      PENSTOCK_TRY(end_tag());
      node.otherwise = PENSTOCK_TRY(parse_block({"endfor"}));
    }
    PENSTOCK_TRY(end_block("endfor"));
    return add(std::move(node));
  }

  // a   or   a, b   or   (a, b)   or   a, (b, c)
  Result<Target> parse_target() {
    Target first = PENSTOCK_TRY(parse_one_target());
    if (!stream_.at_operator(",")) return first;
    Target tuple;
    tuple.is_tuple = true;
    tuple.parts.push_back(std::move(first));
    while (stream_.take_operator(",")) {
      if (stream_.at_operator(")")) break;
      tuple.parts.push_back(PENSTOCK_TRY(parse_one_target()));
    }
    return tuple;
  }

  Result<Target> parse_one_target() {
    if (stream_.take_operator("(")) {
      if (nesting_ >= kTreeDepthMax) return stream_.error("names are nested too deep");
      ++nesting_;
      Target inside;
      inside.is_tuple = true;
      if (!stream_.at_operator(")")) inside = PENSTOCK_TRY(parse_target());
      --nesting_;
      PENSTOCK_TRY(stream_.expect_operator(")"));
      return inside;
    }
    Target target;
    target.name = PENSTOCK_TRY(parse_new_name("a variable's name"));
    return target;
  }

  Result<std::string> parse_new_name(std::string_view what) {
    for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
      if (stream_.at_name(constant)) return stream_.unexpected(what);
    }
    return stream_.expect_any_name(what);
  }

  Result<const Statement*> parse_set() {
    Statement node = make(StatementKind::kSet);
    node.target = PENSTOCK_TRY(parse_target());
    if (!node.target.is_tuple && stream_.take_operator(".")) {
      node.target.attribute = PENSTOCK_TRY(stream_.expect_any_name("an attribute's name"));
    }
    if (stream_.take_operator("=")) {
      node.value = PENSTOCK_TRY(expressions_.parse_tuple());
      PENSTOCK_TRY(end_tag());
      return add(std::move(node));
    }
    node.kind = StatementKind::kSetBlock;
    if (stream_.take_operator("|")) {
      node.value = PENSTOCK_TRY(expressions_.parse_block_filters());
    }
    if (!stream_.at(Token::Kind::kBlockEnd)) return stream_.unexpected("'='");
    PENSTOCK_TRY(end_tag());
    node.body = PENSTOCK_TRY(parse_block({"endset"}));
    PENSTOCK_TRY(end_block("endset"));
    return add(std::move(node));
  }

  // A block that break and continue do not reach out of.
  Result<Block> parse_body(Names ends) {
    const int loops_outside = loops_;
    loops_ = 0;
    Block body = PENSTOCK_TRY(parse_block(ends));
    loops_ = loops_outside;
    return body;
  }

  Result<const Statement*> parse_filter() {
    Statement node = make(StatementKind::kFilter);
    node.value = PENSTOCK_TRY(expressions_.parse_block_filters());
    PENSTOCK_TRY(end_tag());
    node.body = PENSTOCK_TRY(parse_block({"endfilter"}));
    PENSTOCK_TRY(end_block("endfilter"));
    return add(std::move(node));
  }

  Result<const Statement*> parse_with() {
    Statement node = make(StatementKind::kWith);
    while (!stream_.at(Token::Kind::kBlockEnd)) {
      if (!node.bindings.empty()) PENSTOCK_TRY(stream_.expect_operator(","));
      Target target = PENSTOCK_TRY(parse_target());
      PENSTOCK_TRY(stream_.expect_operator("="));
      const Expression* value = PENSTOCK_TRY(expressions_.parse());
      node.bindings.emplace_back(std::move(target), value);
    }
    PENSTOCK_TRY(end_tag());
    node.body = PENSTOCK_TRY(parse_block({"endwith"}));
    PENSTOCK_TRY(end_block("endwith"));
    return add(std::move(node));
  }

  // {% print a, b %} prints one after the other.
  Result<const Statement*> parse_print() {
    Statement node = make(StatementKind::kScope);
    while (!stream_.at(Token::Kind::kBlockEnd)) {
      if (!node.body.empty()) PENSTOCK_TRY(stream_.expect_operator(","));
      Statement output = make(StatementKind::kOutput);
      output.value = PENSTOCK_TRY(expressions_.parse());
      node.body.push_back(add(std::move(output)));
    }
    PENSTOCK_TRY(end_tag());
    return add(std::move(node));
  }

  // The parameters of a macro in parentheses.
  Result<void> parse_signature(Macro& macro) {
    PENSTOCK_TRY(stream_.expect_operator("("));
    while (!stream_.take_operator(")")) {
      if (!macro.parameters.empty()) PENSTOCK_TRY(stream_.expect_operator(","));
      std::string name = PENSTOCK_TRY(stream_.expect_any_name("a parameter's name"));
      const Expression* otherwise = nullptr;
      if (stream_.take_operator("=")) {
        otherwise = PENSTOCK_TRY(expressions_.parse());
      } else if (!macro.parameters.empty() && macro.parameters.back().second != nullptr) {
        return stream_.error("a parameter without a default follows one with a default");
      }
      macro.parameters.emplace_back(std::move(name), otherwise);
    }
    return {};
  }

  // The body of a macro or call block, and which of the special names it uses.
  Result<void> parse_macro_body(Macro& macro, Names ends) {
    expressions_.open_macros().push_back(&macro);
    macro.body = PENSTOCK_TRY(parse_body(ends));
    expressions_.open_macros().pop_back();
    for (const auto& [name, otherwise] : macro.parameters) {
      if (name == "varargs") macro.uses_varargs = false;
      if (name == "kwargs") macro.uses_kwargs = false;
      if (name == "caller" && macro.uses_caller && otherwise == nullptr) {
        return stream_.error("a parameter 'caller' needs a default");
      }
    }
    return {};
  }

  Result<const Statement*> parse_macro() {
    Statement node = make(StatementKind::kMacro);
    node.macro.name = PENSTOCK_TRY(parse_new_name("a macro's name"));
    PENSTOCK_TRY(parse_signature(node.macro));
    PENSTOCK_TRY(end_tag());
    PENSTOCK_TRY(parse_macro_body(node.macro, {"endmacro"}));
    stream_.take_name("endmacro");
    if (stream_.at(Token::Kind::kName)) stream_.take();  // endmacro may repeat the macro's name
    PENSTOCK_TRY(end_tag());
    return add(std::move(node));
  }

  Result<const Statement*> parse_call() {
    Statement node = make(StatementKind::kCall);
    node.macro.name = "caller";
    if (stream_.at_operator("(")) PENSTOCK_TRY(parse_signature(node.macro));
    node.value = PENSTOCK_TRY(expressions_.parse());
    if (node.value->kind != Expression::Kind::kCall) {
      return stream_.error("a call block needs a call, such as {% call name() %}");
    }
    PENSTOCK_TRY(end_tag());
    PENSTOCK_TRY(parse_macro_body(node.macro, {"endcall"}));
    PENSTOCK_TRY(end_block("endcall"));
    return add(std::move(node));
  }

  Result<const Statement*> parse_generation() {
    Statement node = make(StatementKind::kScope);
    PENSTOCK_TRY(end_tag());
    node.body = PENSTOCK_TRY(parse_body({"endgeneration"}));
    PENSTOCK_TRY(end_block("endgeneration"));
    return add(std::move(node));
  }

  Result<void> end_tag() { return stream_.expect(Token::Kind::kBlockEnd, "'%}'"); }

  Result<void> end_block(std::string_view name) {
    if (!stream_.take_name(name)) return stream_.unexpected(fmt::format("'{}'", name));
    return end_tag();
  }

  Statement make(StatementKind kind) const {
    Statement node;
    node.kind = kind;
    node.line = stream_.line();
    return node;
  }

  const Statement* add(Statement node) { return &tree_.statements.emplace_back(std::move(node)); }

  TokenStream stream_;
  Tree tree_;
  ExpressionParser expressions_;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

Result<Tree> parse(std::string_view source) {
  return Parser(PENSTOCK_TRY(tokenize(source))).run();
}

}  // namespace penstock::jinja
