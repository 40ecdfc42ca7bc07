#include "text/added_tokens.h"

#include <algorithm>

namespace penstock {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.text < b.text; });
  for (const AddedToken& token : tokens_) begins_[static_cast<uint8_t>(token.text[0])] = true;
}

const AddedToken* AddedTokens::longest_prefix_of(std::string_view text) const {
  const AddedToken* longest = nullptr;
  auto low = tokens_.begin();
  auto high = tokens_.end();
  for (size_t depth = 0; low != high; ++depth) {
    // All in [low, high) begin with text[0, depth); the shortest comes first.
    if (low->text.size() == depth) longest = &*low++;
    if (depth == text.size()) break;
    const auto byte_at = [depth](const AddedToken& t) {
      return static_cast<uint8_t>(t.text[depth]);
    };
    const auto wanted = static_cast<uint8_t>(text[depth]);
    low = std::partition_point(low, high, [&](const auto& t) { return byte_at(t) < wanted; });
    high = std::partition_point(low, high, [&](const auto& t) { return byte_at(t) == wanted; });
  }
  return longest;
}

std::optional<AddedTokens::Match> AddedTokens::find_in(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<uint8_t>(text[begin])]) continue;
    const AddedToken* token = longest_prefix_of(text.substr(begin));
    if (token != nullptr) return Match{begin, token};
  }
  return std::nullopt;
}

const AddedToken* AddedTokens::find(std::string_view text) const {
  const auto found = std::lower_bound(
      tokens_.begin(), tokens_.end(), text,
      [](const AddedToken& token, std::string_view wanted) { return token.text < wanted; });
  return found != tokens_.end() && found->text == text ? &*found : nullptr;
}

int64_t AddedTokens::memory_bytes() const {
  size_t bytes = tokens_.capacity() * sizeof(AddedToken);
  for (const AddedToken& token : tokens_) bytes += token.text.capacity();
  return static_cast<int64_t>(bytes);
}

}  // namespace penstock
