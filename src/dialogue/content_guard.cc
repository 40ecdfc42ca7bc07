#include "dialogue/content_guard.h"

#include <algorithm>
#include <set>

#include "text/utf8.h"

namespace penstock {
namespace {

// U+FDD0 to U+FDEF stand for no character and never will.
constexpr char32_t kFirstMark = 0xFDD0;
constexpr char32_t kLastMark = 0xFDEF;

// Every `what` in `text` gets `mark` behind its first character.
void break_up(std::string& text, const std::string& what, const std::string& mark) {
  const size_t first_bytes = decode_utf8(what, 0).bytes;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at)) {
    text.insert(at + first_bytes, mark);
    at += first_bytes + mark.size();
  }
}

}  // namespace

Result<ContentGuard> ContentGuard::create(const Tokenizer& tokenizer, std::string_view contents) {
  for (char32_t candidate = kFirstMark; candidate <= kLastMark; ++candidate) {
    std::string mark;
    append_utf8(candidate, mark);
    if (contents.find(mark) == std::string_view::npos) return ContentGuard(tokenizer, mark);
  }
  return Error{ErrorCode::kInvalidArgument,
               "the messages hold every Unicode noncharacter from U+FDD0 to U+FDEF; leave one out"};
}

bool ContentGuard::is_added(TokenId id) const {
  const std::string text(tokenizer_->token_bytes(id));
  const std::vector<TokenId> alone = {id};
  return !text.empty() && tokenizer_->encode(text, SpecialTokens::kParse) == alone &&
         tokenizer_->encode(text, SpecialTokens::kAsText) != alone;
}

std::vector<std::string> ContentGuard::added_in(std::string_view text, Trust trust) const {
  const std::vector<TokenId> parsed = tokenizer_->encode(text, SpecialTokens::kParse);
  if (parsed == tokenizer_->encode(text, SpecialTokens::kAsText)) return {};
  std::vector<std::string> found;
  for (const TokenId id : std::set<TokenId>(parsed.begin(), parsed.end())) {
    if (!is_added(id) || (trust == Trust::kModel && !tokenizer_->is_special(id))) continue;
    const std::string_view bytes = tokenizer_->token_bytes(id);
    if (decode_utf8(bytes, 0).bytes < bytes.size()) found.emplace_back(bytes);
  }
  return found;
}

std::string ContentGuard::mark(std::string_view content, Trust trust) {
  std::string text(content);
  // Breaking one up can uncover another that it overlapped; each round breaks at least one.
  for (auto found = added_in(text, trust); !found.empty(); found = added_in(text, trust)) {
    for (const std::string& what : found) break_up(text, what, mark_);
    used_ = true;
  }
  return text;
}

void ContentGuard::append_run(std::span<const TokenId> run, std::vector<TokenId>& tokens) const {
  std::string text = tokenizer_->decode(run);
  if (text.find(mark_) == std::string::npos) {
    tokens.insert(tokens.end(), run.begin(), run.end());
    return;
  }
  for (size_t at = text.find(mark_); at != std::string::npos; at = text.find(mark_, at)) {
    text.erase(at, mark_.size());
  }
  const std::vector<TokenId> plain = tokenizer_->encode(text, SpecialTokens::kAsText);
  tokens.insert(tokens.end(), plain.begin(), plain.end());
}

std::vector<TokenId> ContentGuard::encode(const std::string& rendered) const {
  std::vector<TokenId> parsed = tokenizer_->encode(rendered, SpecialTokens::kParse);
  if (!used_) return parsed;
  std::set<TokenId> added;
  for (const TokenId id : std::set<TokenId>(parsed.begin(), parsed.end())) {
    if (is_added(id)) added.insert(id);
  }
  // Between two control tokens the text is one piece to the tokenizer: encoded again as a whole.
  std::vector<TokenId> tokens;
  const std::span<const TokenId> all(parsed);
  size_t begin = 0;
  for (size_t i = 0; i <= all.size(); ++i) {
    if (i < all.size() && !added.contains(all[i])) continue;
    append_run(all.subspan(begin, i - begin), tokens);
    if (i < all.size()) tokens.push_back(all[i]);
    begin = i + 1;
  }
  return tokens;
}

}  // namespace penstock
