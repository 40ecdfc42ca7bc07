#include "dialogue/content_guard.h"

#include <algorithm>
#include <set>

#include "text/utf8.h"

namespace penstock {
namespace {

// U+FDD0 to U+FDEF stand for no character and never will.
constexpr char32_t kFirstMark = 0xFDD0;
constexpr char32_t kLastMark = 0xFDEF;

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

std::string with_marks(std::string_view text, const std::string& mark,
                       const ControlSearch& search) {
  std::string out;
  size_t done = 0;
  size_t from = 0;
  for (auto match = search(text, from); match; match = search(text, from)) {
    const size_t first_end = match->begin + decode_utf8(text, match->begin).bytes;
    // Behind the mark the text begins anew: what the broken token hid is found next.
    const bool breaks = !match->is_allowed && first_end < match->end;
    from = breaks ? first_end : match->end;
    if (!breaks) continue;
    out += text.substr(done, first_end - done);
    out += mark;
    done = first_end;
  }
  if (done == 0) return std::string(text);
  return out.append(text.substr(done));
}

std::string ContentGuard::mark(std::string_view content, Trust trust) {
  const ControlSearch search = [&](std::string_view text,
                                   size_t from) -> std::optional<ControlMatch> {
    const auto match = tokenizer_->find_added(text, from);
    if (!match) return std::nullopt;
    const bool is_allowed = trust == Trust::kModel && !tokenizer_->is_special(match->id);
    return ControlMatch{match->begin, match->end, is_allowed};
  };
  // Some tokens are looked for in normalised text, which may hold one that the content does not.
  if (const auto normalised = tokenizer_->as_normalised(content)) {
    std::string marked = with_marks(*normalised, mark_, search);
    if (marked.size() > normalised->size()) {
      used_ = true;
      return marked;
    }
  }
  std::string marked = with_marks(content, mark_, search);
  used_ = used_ || marked.size() > content.size();
  return marked;
}

size_t ContentGuard::find_special(std::string_view rendered, size_t from) const {
  for (auto match = tokenizer_->find_added(rendered, from); match;
       match = tokenizer_->find_added(rendered, match->end)) {
    if (tokenizer_->is_special(match->id)) return match->begin;
  }
  return std::string_view::npos;
}

bool ContentGuard::is_control(TokenId id) const {
  const std::string text(tokenizer_->token_bytes(id));
  const std::vector<TokenId> alone = {id};
  return !text.empty() && tokenizer_->encode(text, SpecialTokens::kParse) == alone &&
         tokenizer_->encode(text, SpecialTokens::kAsText) != alone;
}

void ContentGuard::append_run(std::span<const TokenId> run, std::vector<TokenId>& tokens) const {
  const std::string text = tokenizer_->decode(run);
  size_t at = text.find(mark_);
  if (at == std::string::npos) {
    tokens.insert(tokens.end(), run.begin(), run.end());
    return;
  }
  std::string unmarked;
  size_t done = 0;
  for (; at != std::string::npos; at = text.find(mark_, done)) {
    unmarked.append(text, done, at - done);
    done = at + mark_.size();
  }
  unmarked.append(text, done);
  const std::vector<TokenId> plain = tokenizer_->encode(unmarked, SpecialTokens::kAsText);
  tokens.insert(tokens.end(), plain.begin(), plain.end());
}

std::vector<TokenId> ContentGuard::encode(const std::string& rendered) const {
  std::vector<TokenId> parsed = tokenizer_->encode(rendered, SpecialTokens::kParse);
  if (!used_) return parsed;
  std::set<TokenId> seen;
  for (const TokenId id : parsed) {
    if (tokenizer_->is_added(id)) seen.insert(id);
  }
  std::set<TokenId> control;
  for (const TokenId id : seen) {
    if (is_control(id)) control.insert(id);
  }
  // Between two control tokens the text is one piece to the tokenizer: encoded again as a whole.
  std::vector<TokenId> tokens;
  const std::span<const TokenId> all(parsed);
  size_t begin = 0;
  for (size_t i = 0; i <= all.size(); ++i) {
    if (i < all.size() && !control.contains(all[i])) continue;
    append_run(all.subspan(begin, i - begin), tokens);
    if (i < all.size()) tokens.push_back(all[i]);
    begin = i + 1;
  }
  return tokens;
}

}  // namespace penstock
