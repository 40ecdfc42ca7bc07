// The tokens of a template while they are parsed, and the errors that name their line.
//
// Errors  kCorrupt, naming the line
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/lexer.h"

namespace penstock::jinja {

class TokenStream {
 public:
  // Ends with kEnd, as tokenize() makes them.
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(position_ + ahead, tokens_.size() - 1)];
  }
  const Token& take() {
    const Token& token = peek();
    ++position_;
    return token;
  }
  int line() const { return peek().line; }

  bool at(Token::Kind kind) const { return peek().kind == kind; }
  bool at_operator(std::string_view text) const {
    return at(Token::Kind::kOperator) && peek().text == text;
  }
  bool at_name(std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::kName && peek(ahead).text == text;
  }
  bool take_operator(std::string_view text) {
    if (!at_operator(text)) return false;
    ++position_;
    return true;
  }
  bool take_name(std::string_view text) {
    if (!at_name(text)) return false;
    ++position_;
    return true;
  }

  Result<void> expect(Token::Kind kind, std::string_view what) {
    if (!at(kind)) return unexpected(what);
    ++position_;
    return {};
  }
  Result<void> expect_operator(std::string_view text) {
    if (!take_operator(text)) return unexpected(fmt::format("'{}'", text));
    return {};
  }
  Result<std::string> expect_any_name(std::string_view what) {
    if (!at(Token::Kind::kName)) return unexpected(what);
    return take().text;
  }

  Error error(const std::string& sentence) const {
    return {ErrorCode::kCorrupt, fmt::format("line {}: {}", line(), sentence)};
  }
  Error unsupported(const std::string& sentence) const {
    return {ErrorCode::kUnsupported, fmt::format("line {}: {}", line(), sentence)};
  }
  Error unexpected(std::string_view wanted) const {
    return error(fmt::format("expected {}, found {}", wanted, describe(peek())));
  }

 private:
  static std::string describe(const Token& token) {
    switch (token.kind) {
      case Token::Kind::kText: return "text";
      case Token::Kind::kOutputBegin: return "'{{'";
      case Token::Kind::kOutputEnd: return "'}}'";
      case Token::Kind::kBlockBegin: return "'{%'";
      case Token::Kind::kBlockEnd: return "'%}'";
      case Token::Kind::kString: return "a text in quotes";
      case Token::Kind::kInteger:
      case Token::Kind::kFloat: return "a number";
      case Token::Kind::kEnd: return "the end of the template";
      case Token::Kind::kName:
      case Token::Kind::kOperator: break;
    }
    return fmt::format("'{}'", token.text);
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
};

}  // namespace penstock::jinja
