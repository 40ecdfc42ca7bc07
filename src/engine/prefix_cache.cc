#include "engine/prefix_cache.h"

#include <algorithm>

namespace penstock {

const StateMark* PrefixCache::find(std::span<const TokenId> prompt, int64_t tokens_max) {
  auto best = entries_.end();
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    const auto length = std::ssize(entry->tokens);
    if (length > tokens_max || length > std::ssize(prompt)) continue;
    if (best != entries_.end() && length <= std::ssize(best->tokens)) continue;
    if (std::ranges::equal(entry->tokens, prompt.first(entry->tokens.size()))) best = entry;
  }
  if (best == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, best);
  return &entries_.front().mark;
}

void PrefixCache::keep(std::span<const TokenId> tokens, const SequenceState& state) {
  if (capacity_ == 0 || tokens.empty()) return;
  const auto same = std::ranges::find_if(
      entries_, [&](const Entry& entry) { return std::ranges::equal(entry.tokens, tokens); });
  if (same != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, same);
    return;
  }
  while (std::ssize(entries_) >= capacity_) entries_.pop_back();
  entries_.push_front({{tokens.begin(), tokens.end()}, state.mark()});
}

bool PrefixCache::drop_oldest() {
  if (entries_.empty()) return false;
  entries_.pop_back();
  return true;
}

}  // namespace penstock
