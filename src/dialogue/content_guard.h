// Keeps control tokens out of what people write.
//
// A chat template puts contents between control tokens, and the rendered text is cut at the texts
// of such tokens. A content that holds "<|im_end|>" could so end its own message and begin another
// one in someone else's name. The guard breaks every such text up with a mark that no text uses (a
// Unicode noncharacter), lets the template do its work, and takes the marks out again while
// encoding, so that the text stays text: not one character is changed, only tokens differ.
//
//   ContentGuard guard(tokenizer, all_contents);
//   message["content"] = guard.mark(content, ContentGuard::Trust::kNone);
//   tokens = guard.encode(chat_template.render(...));
//
// Contents without such texts, nearly all, get exactly the tokens of the reference. Where only the
// normalised form of a content would hold such a text, that form is what the template gets.
//
// Limits  A control token whose text is a single character cannot be broken up. Two contents that
//         a template joins without anything between them could form one. Everything takes linear
//         time, whatever the contents are.
// Errors  create(): kInvalidArgument when the contents use every noncharacter.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace penstock {

class ContentGuard {
 public:
  enum class Trust {
    kNone,   // a user, a tool, a system message
    kModel,  // an answer: may hold <think> and <tool_call>, but no end of a turn
  };

  // `contents`: everything that will be marked or rendered, in any form: picks a mark that is not
  // in it. The tokenizer must outlive the guard.
  static Result<ContentGuard> create(const Tokenizer& tokenizer, std::string_view contents);

  std::string mark(std::string_view content, Trust trust);
  std::vector<TokenId> encode(const std::string& rendered) const;
  // Where the first special token (not one like <think>) begins at or behind a place; npos: nowhere.
  size_t find_special(std::string_view rendered, size_t from) const;

 private:
  ContentGuard(const Tokenizer& tokenizer, std::string mark)
      : tokenizer_(&tokenizer), mark_(std::move(mark)) {}

  // Recognised in a text that is parsed, and only there.
  bool is_control(TokenId id) const;
  void append_run(std::span<const TokenId> run, std::vector<TokenId>& tokens) const;

  const Tokenizer* tokenizer_;
  std::string mark_;
  bool used_ = false;
};

// A control token's text in a content.
struct ControlMatch {
  size_t begin;
  size_t end;
  bool is_allowed;  // it may stay a token
};
// The first that begins at or after a place.
using ControlSearch = std::function<std::optional<ControlMatch>(std::string_view, size_t)>;

// The text with `mark` behind the first character of everything that `search` finds and does not
// allow. Asks once for each place that is found, from places that only move on.
std::string with_marks(std::string_view text, const std::string& mark, const ControlSearch& search);

}  // namespace penstock
