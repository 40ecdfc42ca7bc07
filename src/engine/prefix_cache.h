// Places that were kept: prefixes of conversations, each with the state after it.
//
// A template renders earlier turns anew, a system prompt comes with every request: what such a
// prefix left behind is worth keeping. An entry holds a StateMark, which costs pages and a set of the
// SequenceMemory; when a pass needs them, the entry that was used longest ago goes.
//
// Threads  the computing thread
// Memory   the tokens of each entry, and what its mark holds; at most `capacity` entries
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "model/state.h"
#include "text/token.h"

namespace penstock {

class PrefixCache {
 public:
  explicit PrefixCache(int capacity) : capacity_(capacity) {}

  // The entry that shares most with `prompt`: all of its tokens begin it, and they are at most
  // `tokens_max`. nullptr: none. Valid until the next call.
  const StateMark* find(std::span<const TokenId> prompt, int64_t tokens_max);

  // Keeps the state after `tokens`, unless it is kept already; the oldest entry makes room.
  void keep(std::span<const TokenId> tokens, const SequenceState& state);

  // Gives up the entry that was used longest ago. False: there is none.
  bool drop_oldest();
  void clear() { entries_.clear(); }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::vector<TokenId> tokens;
    StateMark mark;
  };

  int capacity_;
  std::list<Entry> entries_;  // the one used last is the first
};

}  // namespace penstock
