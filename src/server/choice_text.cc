#include "server/choice_text.h"

#include <algorithm>
#include <utility>

#include "grammar/tool_grammar.h"

namespace penstock {
namespace {

// The longest end of `text` that `what` begins with, and is not.
size_t overlap(std::string_view text, std::string_view what) {
  for (size_t length = std::min(text.size(), what.size() - 1); length > 0; --length) {
    if (text.ends_with(what.substr(0, length))) return length;
  }
  return 0;
}

}  // namespace

ChoiceText::ChoiceText(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                       bool opens_reasoning)
    : tokenizer_(&tokenizer), stops_(std::move(stop_strings)), in_reasoning_(opens_reasoning) {}

std::string ChoiceText::push(TokenId token) {
  const std::string piece = characters_.push(tokenizer_->token_bytes(token));
  std::string_view rest = piece;
  std::string told;
  if (in_reasoning_) told = pass_reasoning(rest);
  if (!in_reasoning_) told += stops_.push(rest);
  return told;
}

std::string ChoiceText::finish() {
  const std::string piece = characters_.finish();
  if (in_reasoning_) return piece;
  const std::string told = stops_.push(piece);
  return told + stops_.flush();
}

std::string ChoiceText::pass_reasoning(std::string_view& text) {
  const std::string all = tail_ + std::string(text);
  const size_t end = all.find(kThinkEnd);
  if (end == std::string::npos) {
    tail_ = all.substr(all.size() - overlap(all, kThinkEnd));
    return std::string(std::exchange(text, {}));
  }
  in_reasoning_ = false;
  const size_t used = end + kThinkEnd.size() - tail_.size();
  const std::string told(text.substr(0, used));
  text.remove_prefix(used);
  return told;
}

}  // namespace penstock
