#include "text/jinja/expression_parser.h"

#include <algorithm>
#include <array>
#include <optional>

#include "text/jinja/python_text.h"

namespace penstock::jinja {
namespace {

using NodeKind = Expression::Kind;

constexpr std::array<std::string_view, 8> kKeywords = {"and", "or",   "not",  "if",
                                                       "in",  "else", "elif", "is"};

bool is_keyword(std::string_view name) {
  return std::find(kKeywords.begin(), kKeywords.end(), name) != kKeywords.end();
}

std::optional<Comparison> symbol_comparison(const TokenStream& stream) {
  constexpr std::pair<std::string_view, Comparison> kSymbols[] = {
      {"==", Comparison::kEqual},  {"!=", Comparison::kNotEqual},
      {"<", Comparison::kLess},    {"<=", Comparison::kLessOrEqual},
      {">", Comparison::kGreater}, {">=", Comparison::kGreaterOrEqual},
  };
  for (const auto& [symbol, comparison] : kSymbols) {
    if (stream.at_operator(symbol)) return comparison;
  }
  return std::nullopt;
}

}  // namespace

Expression ExpressionParser::make(NodeKind kind, std::vector<const Expression*> children) const {
  Expression node;
  node.kind = kind;
  node.line = stream_.line();
  node.children = std::move(children);
  return node;
}

ExpressionParser::Node ExpressionParser::add(Expression node) {
  for (const Expression* child : node.children) {
    if (child != nullptr) node.depth = std::max(node.depth, child->depth + 1);
  }
  for (const auto& [name, child] : node.keywords) {
    node.depth = std::max(node.depth, child->depth + 1);
  }
  for (const Expression* child : {node.more_arguments, node.more_keywords}) {
    if (child != nullptr) node.depth = std::max(node.depth, child->depth + 1);
  }
  if (node.depth > kTreeDepthMax) return stream_.error("the expression is nested too deep");
  return &tree_.expressions.emplace_back(std::move(node));
}

ExpressionParser::Node ExpressionParser::add_constant(Value value) {
  Expression node = make(NodeKind::kConstant);
  node.constant = value;
  return add(std::move(node));
}

ExpressionParser::Node ExpressionParser::add_text(std::string text) {
  const int64_t length = code_point_count(text);
  return add_constant(Value(&tree_.texts.emplace_back(Text{std::move(text), length, false})));
}

ExpressionParser::Node ExpressionParser::binary(Operator operation, const Expression* left,
                                                const Expression* right) {
  Expression node = make(NodeKind::kOperation, {left, right});
  node.operation = operation;
  return add(std::move(node));
}

ExpressionParser::Node ExpressionParser::parse() {
  // Every way to nest expressions comes through here or through a sign in parse_unary.
  if (nesting_ > kTreeDepthMax) return stream_.error("the expression is nested too deep");
  ++nesting_;
  const Expression* value = PENSTOCK_TRY(parse_without_if());
  while (stream_.take_name("if")) {
    const Expression* condition = PENSTOCK_TRY(parse_without_if());
    const Expression* otherwise = nullptr;
    if (stream_.take_name("else")) otherwise = PENSTOCK_TRY(parse());
    value = PENSTOCK_TRY(add(make(NodeKind::kIfElse, {condition, value, otherwise})));
  }
  --nesting_;
  return value;
}

template <class ParseOne>
ExpressionParser::Node ExpressionParser::parse_list_of(const ParseOne& parse_one) {
  const Expression* first = PENSTOCK_TRY(parse_one());
  if (!stream_.at_operator(",")) return first;
  std::vector<const Expression*> items = {first};
  while (stream_.take_operator(",")) {
    const bool ends = stream_.at(Token::Kind::kBlockEnd) || stream_.at(Token::Kind::kOutputEnd) ||
                      stream_.at_operator(")");
    if (ends) break;
    items.push_back(PENSTOCK_TRY(parse_one()));
  }
  return add(make(NodeKind::kTuple, std::move(items)));
}

ExpressionParser::Node ExpressionParser::parse_tuple() {
  return parse_list_of([this] { return parse(); });
}

ExpressionParser::Node ExpressionParser::parse_tuple_without_if() {
  return parse_list_of([this] { return parse_without_if(); });
}

ExpressionParser::Node ExpressionParser::parse_block_filters() {
  const Expression* node = PENSTOCK_TRY(add(make(NodeKind::kCaptured)));
  do {
    node = PENSTOCK_TRY(parse_filter(node));
  } while (stream_.take_operator("|"));
  return node;
}

void ExpressionParser::note_name(std::string_view name) {
  for (Macro* macro : open_macros_) {
    macro->uses_caller |= name == "caller";
    macro->uses_varargs |= name == "varargs";
    macro->uses_kwargs |= name == "kwargs";
  }
}

ExpressionParser::Node ExpressionParser::parse_without_if() {
  const Expression* left = PENSTOCK_TRY(parse_and());
  while (stream_.take_name("or")) {
    const Expression* right = PENSTOCK_TRY(parse_and());
    left = PENSTOCK_TRY(add(make(NodeKind::kOr, {left, right})));
  }
  return left;
}

ExpressionParser::Node ExpressionParser::parse_and() {
  const Expression* left = PENSTOCK_TRY(parse_not());
  while (stream_.take_name("and")) {
    const Expression* right = PENSTOCK_TRY(parse_not());
    left = PENSTOCK_TRY(add(make(NodeKind::kAnd, {left, right})));
  }
  return left;
}

ExpressionParser::Node ExpressionParser::parse_not() {
  size_t count = 0;
  while (stream_.take_name("not")) ++count;
  const Expression* node = PENSTOCK_TRY(parse_comparison());
  for (; count > 0; --count) node = PENSTOCK_TRY(add(make(NodeKind::kNot, {node})));
  return node;
}

ExpressionParser::Node ExpressionParser::parse_comparison() {
  Expression node = make(NodeKind::kCompare, {PENSTOCK_TRY(parse_sum())});
  for (;;) {
    std::optional<Comparison> comparison = symbol_comparison(stream_);
    if (comparison) {
      stream_.take();
    } else if (stream_.take_name("in")) {
      comparison = Comparison::kIn;
    } else if (stream_.at_name("not") && stream_.at_name("in", 1)) {
      stream_.take();
      stream_.take();
      comparison = Comparison::kNotIn;
    } else {
      break;
    }
    node.comparisons.push_back(*comparison);
    node.children.push_back(PENSTOCK_TRY(parse_sum()));
  }
  if (node.comparisons.empty()) return node.children[0];
  return add(std::move(node));
}

ExpressionParser::Node ExpressionParser::parse_sum() {
  const Expression* left = PENSTOCK_TRY(parse_concatenation());
  for (;;) {
    const bool adds = stream_.at_operator("+");
    if (!adds && !stream_.at_operator("-")) return left;
    stream_.take();
    const Expression* right = PENSTOCK_TRY(parse_concatenation());
    left = PENSTOCK_TRY(binary(adds ? Operator::kAdd : Operator::kSubtract, left, right));
  }
}

ExpressionParser::Node ExpressionParser::parse_concatenation() {
  const Expression* left = PENSTOCK_TRY(parse_product());
  while (stream_.take_operator("~")) {
    const Expression* right = PENSTOCK_TRY(parse_product());
    left = PENSTOCK_TRY(binary(Operator::kConcatenate, left, right));
  }
  return left;
}

ExpressionParser::Node ExpressionParser::parse_product() {
  const Expression* left = PENSTOCK_TRY(parse_power());
  for (;;) {
    Operator operation = Operator::kMultiply;
    if (stream_.at_operator("/")) {
      operation = Operator::kDivide;
    } else if (stream_.at_operator("//")) {
      operation = Operator::kFloorDivide;
    } else if (stream_.at_operator("%")) {
      operation = Operator::kModulo;
    } else if (!stream_.at_operator("*")) {
      return left;
    }
    stream_.take();
    const Expression* right = PENSTOCK_TRY(parse_power());
    left = PENSTOCK_TRY(binary(operation, left, right));
  }
}

ExpressionParser::Node ExpressionParser::parse_power() {
  const Expression* left = PENSTOCK_TRY(parse_unary(true));
  while (stream_.take_operator("**")) {
    const Expression* right = PENSTOCK_TRY(parse_unary(true));
    left = PENSTOCK_TRY(binary(Operator::kPower, left, right));
  }
  return left;
}

ExpressionParser::Node ExpressionParser::parse_unary(bool with_filters) {
  const Expression* node = nullptr;
  const bool negates = stream_.at_operator("-");
  if (negates || stream_.at_operator("+")) {
    if (nesting_ > kTreeDepthMax) return stream_.error("the expression is nested too deep");
    ++nesting_;
    stream_.take();
    const Expression* operand = PENSTOCK_TRY(parse_unary(false));
    --nesting_;
    node = PENSTOCK_TRY(add(make(negates ? NodeKind::kNegate : NodeKind::kPlus, {operand})));
  } else {
    node = PENSTOCK_TRY(parse_primary());
  }
  node = PENSTOCK_TRY(parse_postfix(node));
  return with_filters ? parse_filters(node) : Node(node);
}

ExpressionParser::Node ExpressionParser::parse_primary() {
  const Token& token = stream_.peek();
  switch (token.kind) {
    case Token::Kind::kName: {
      if (is_keyword(token.text)) break;
      const std::string& name = stream_.take().text;
      if (name == "true" || name == "True") return add_constant(Value(true));
      if (name == "false" || name == "False") return add_constant(Value(false));
      if (name == "none" || name == "None") return add_constant(Value::none());
      note_name(name);
      Expression node = make(NodeKind::kName);
      node.name = name;
      return add(std::move(node));
    }
    case Token::Kind::kString: {
      std::string text;
      while (stream_.at(Token::Kind::kString)) text += stream_.take().text;  // "a" "b" is "ab"
      return add_text(std::move(text));
    }
    case Token::Kind::kInteger: return add_constant(Value(stream_.take().integer));
    case Token::Kind::kFloat: return add_constant(Value(stream_.take().real));
    default:
      if (stream_.take_operator("(")) return parse_parenthesis();
      if (stream_.take_operator("[")) return parse_list();
      if (stream_.take_operator("{")) return parse_dict();
      break;
  }
  return stream_.unexpected("a value");
}

ExpressionParser::Node ExpressionParser::parse_parenthesis() {
  if (stream_.take_operator(")")) return add(make(NodeKind::kTuple));
  const Expression* inside = PENSTOCK_TRY(parse_tuple());
  PENSTOCK_TRY(stream_.expect_operator(")"));
  return inside;
}

ExpressionParser::Node ExpressionParser::parse_list() {
  Expression node = make(NodeKind::kList);
  while (!stream_.take_operator("]")) {
    if (!node.children.empty()) {
      PENSTOCK_TRY(stream_.expect_operator(","));
      if (stream_.take_operator("]")) break;
    }
    node.children.push_back(PENSTOCK_TRY(parse()));
  }
  return add(std::move(node));
}

ExpressionParser::Node ExpressionParser::parse_dict() {
  Expression node = make(NodeKind::kDict);
  while (!stream_.take_operator("}")) {
    if (!node.children.empty()) {
      PENSTOCK_TRY(stream_.expect_operator(","));
      if (stream_.take_operator("}")) break;
    }
    node.children.push_back(PENSTOCK_TRY(parse()));
    PENSTOCK_TRY(stream_.expect_operator(":"));
    node.children.push_back(PENSTOCK_TRY(parse()));
  }
  return add(std::move(node));
}

ExpressionParser::Node ExpressionParser::parse_postfix(const Expression* node) {
  for (;;) {
    if (stream_.take_operator(".")) {
      node = PENSTOCK_TRY(parse_attribute(node));
    } else if (stream_.take_operator("[")) {
      node = PENSTOCK_TRY(parse_subscript(node));
    } else if (stream_.take_operator("(")) {
      node = PENSTOCK_TRY(parse_call(node));
    } else {
      return node;
    }
  }
}

ExpressionParser::Node ExpressionParser::parse_filters(const Expression* node) {
  for (;;) {
    if (stream_.take_operator("|")) {
      node = PENSTOCK_TRY(parse_filter(node));
    } else if (stream_.take_name("is")) {
      node = PENSTOCK_TRY(parse_test(node));
    } else if (stream_.take_operator("(")) {
      node = PENSTOCK_TRY(parse_call(node));
    } else {
      return node;
    }
  }
}

ExpressionParser::Node ExpressionParser::parse_attribute(const Expression* object) {
  if (stream_.at(Token::Kind::kInteger)) {
    const Expression* index = PENSTOCK_TRY(add_constant(Value(stream_.take().integer)));
    return add(make(NodeKind::kSubscript, {object, index}));
  }
  Expression node = make(NodeKind::kAttribute, {object});
  node.name = PENSTOCK_TRY(stream_.expect_any_name("a name after '.'"));
  return add(std::move(node));
}

ExpressionParser::Node ExpressionParser::parse_subscript(const Expression* object) {
  Expression node = make(NodeKind::kSlice, {object});
  const auto bound_follows = [&] { return !stream_.at_operator(":") && !stream_.at_operator("]"); };
  bool is_slice = false;
  do {
    const Expression* bound = nullptr;
    if (bound_follows()) bound = PENSTOCK_TRY(parse());
    node.children.push_back(bound);
    if (stream_.at_operator(":")) is_slice = true;
  } while (node.children.size() < 4 && stream_.take_operator(":"));
  PENSTOCK_TRY(stream_.expect_operator("]"));
  if (is_slice) {
    node.children.resize(4);
  } else {
    node.kind = NodeKind::kSubscript;
    if (node.children[1] == nullptr) return stream_.error("an index is missing between [ and ]");
  }
  return add(std::move(node));
}

Result<void> ExpressionParser::parse_arguments(Expression& node) {
  bool is_first = true;
  while (!stream_.take_operator(")")) {
    if (!is_first) {
      PENSTOCK_TRY(stream_.expect_operator(","));
      if (stream_.take_operator(")")) break;
    }
    is_first = false;
    if (node.more_keywords != nullptr) return stream_.error("an argument follows ** in a call");
    if (stream_.take_operator("**")) {
      node.more_keywords = PENSTOCK_TRY(parse());
      continue;
    }
    if (stream_.at_operator("*") && node.more_arguments == nullptr) {
      stream_.take();
      node.more_arguments = PENSTOCK_TRY(parse());
      continue;
    }
    const bool is_keyword_argument = stream_.at(Token::Kind::kName) &&
                                     stream_.peek(1).kind == Token::Kind::kOperator &&
                                     stream_.peek(1).text == "=";
    if (is_keyword_argument) {
      std::string name = stream_.take().text;
      stream_.take();
      node.keywords.emplace_back(std::move(name), PENSTOCK_TRY(parse()));
    } else if (!node.keywords.empty() || node.more_arguments != nullptr) {
      return stream_.error("an argument without a name follows one with a name or a *");
    } else {
      node.children.push_back(PENSTOCK_TRY(parse()));
    }
  }
  return {};
}

ExpressionParser::Node ExpressionParser::parse_call(const Expression* callee) {
  Expression node = make(NodeKind::kCall, {callee});
  PENSTOCK_TRY(parse_arguments(node));
  return add(std::move(node));
}

ExpressionParser::Node ExpressionParser::parse_filter(const Expression* input) {
  Expression node = make(NodeKind::kFilter, {input});
  node.name = PENSTOCK_TRY(stream_.expect_any_name("a filter's name after '|'"));
  if (stream_.take_operator("(")) PENSTOCK_TRY(parse_arguments(node));
  return add(std::move(node));
}

ExpressionParser::Node ExpressionParser::parse_test(const Expression* input) {
  Expression node = make(NodeKind::kTest, {input});
  node.negated = stream_.take_name("not");
  node.name = PENSTOCK_TRY(stream_.expect_any_name("a test's name after 'is'"));
  const bool value_follows = (stream_.at(Token::Kind::kName) && !is_keyword(stream_.peek().text)) ||
                             stream_.at(Token::Kind::kString) ||
                             stream_.at(Token::Kind::kInteger) || stream_.at(Token::Kind::kFloat) ||
                             stream_.at_operator("[") || stream_.at_operator("{");
  if (stream_.take_operator("(")) {
    PENSTOCK_TRY(parse_arguments(node));
  } else if (value_follows) {
    const Expression* argument = PENSTOCK_TRY(parse_primary());
    node.children.push_back(PENSTOCK_TRY(parse_postfix(argument)));
  }
  return add(std::move(node));
}

}  // namespace penstock::jinja
