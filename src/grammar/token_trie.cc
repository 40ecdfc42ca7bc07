#include "grammar/token_trie.h"

#include <algorithm>
#include <string>

namespace penstock {
namespace {

// What lies below a node when its text stands inside a character.
struct Below {
  ByteGroups groups = 0;
  uint8_t characters = 0;
};

}  // namespace

TokenTrie TokenTrie::create(std::span<const std::string_view> texts) {
  TokenTrie trie;
  trie.vocab_size_ = static_cast<int64_t>(texts.size());
  for (size_t id = 0; id < texts.size(); ++id) {
    if (texts[id].empty() || texts[id].size() > kTokenBytesMax) continue;
    trie.tokens_.push_back(static_cast<TokenId>(id));
  }
  const auto text_of = [&](TokenId id) { return texts[static_cast<size_t>(id)]; };
  std::ranges::sort(trie.tokens_, [&](TokenId a, TokenId b) {
    const std::string_view x = text_of(a);
    const std::string_view y = text_of(b);
    return x != y ? x < y : a < b;
  });
  trie.grow(texts);
  trie.summarise();
  trie.describe_tokens(texts);
  return trie;
}

// Level by level: each node's children are appended together.
void TokenTrie::grow(std::span<const std::string_view> texts) {
  nodes_.emplace_back();
  nodes_[0].end_token = static_cast<uint32_t>(tokens_.size());
  uint32_t level_end = 1;
  for (uint32_t at = 0; at < nodes_.size(); ++at) {
    if (at == level_end) {
      ++depth_max_;
      level_end = static_cast<uint32_t>(nodes_.size());
    }
    const size_t depth = depth_max_;
    const auto byte_of = [&](uint32_t token) {
      return static_cast<uint8_t>(texts[static_cast<size_t>(tokens_[token])][depth]);
    };
    uint32_t token = nodes_[at].first_token;
    const uint32_t end = nodes_[at].end_token;
    while (token < end && texts[static_cast<size_t>(tokens_[token])].size() == depth) ++token;
    // Ids with the same text beyond what the field holds are left out; no vocabulary has them.
    nodes_[at].tokens_here =
        static_cast<uint16_t>(std::min<uint32_t>(token - nodes_[at].first_token, UINT16_MAX));
    nodes_[at].first_child = static_cast<uint32_t>(nodes_.size());
    while (token < end) {
      Node child;
      child.byte = byte_of(token);
      child.first_token = token;
      while (token < end && byte_of(token) == child.byte) ++token;
      child.end_token = token;
      nodes_.push_back(child);
      ++nodes_[at].child_count;
    }
  }
  nodes_.shrink_to_fit();
}

TokenTrie TokenTrie::create(const Tokenizer& tokenizer) {
  std::vector<std::string_view> texts(static_cast<size_t>(tokenizer.vocab_size()));
  for (size_t id = 0; id < texts.size(); ++id) {
    const auto token = static_cast<TokenId>(id);
    if (!tokenizer.is_special(token)) texts[id] = tokenizer.token_bytes(token);
  }
  return create(texts);
}

void TokenTrie::summarise() {
  const auto more = [](uint8_t characters) {
    return characters == kManyCharacters ? kManyCharacters : static_cast<uint8_t>(characters + 1);
  };
  // Behind a byte that fits nowhere another character may begin.
  const auto broken = [&](uint32_t at) -> Below {
    return {nodes_[at].groups | kBrokenCharacters, more(nodes_[at].characters)};
  };
  // Inside a character at most three more bytes are followed, then the sum of a node further down
  // is there already: nodes are done from the last to the first.
  const auto inside = [&](const auto& self, uint32_t at, uint8_t utf8) -> Below {
    const Node& node = nodes_[at];
    if (utf8 == 0) return {node.groups | kWholeCharacters, more(node.characters)};
    Below sum{kWholeCharacters, 1};
    for (uint32_t child = node.first_child; child < node.children().end; ++child) {
      const uint8_t next = next_utf8_state(utf8, nodes_[child].byte);
      const Below below = next == kUtf8Broken ? broken(child) : self(self, child, next);
      sum.groups |= below.groups;
      sum.characters = std::max(sum.characters, below.characters);
    }
    return sum;
  };
  for (auto at = static_cast<uint32_t>(node_count()); at-- > 0;) {
    Node& node = nodes_[at];
    for (uint32_t child = node.first_child; child < node.children().end; ++child) {
      const Node& inner = nodes_[child];
      Below below;
      if (inner.byte < 0x80) {
        below = {inner.groups | kAsciiGroups[inner.byte], more(inner.characters)};
      } else {
        const uint8_t utf8 = next_utf8_state(0, inner.byte);
        below = utf8 == kUtf8Broken ? broken(child) : inside(inside, child, utf8);
      }
      node.groups |= below.groups;
      node.characters = std::max(node.characters, below.characters);
    }
  }
}

void TokenTrie::describe_tokens(std::span<const std::string_view> texts) {
  const size_t words = (texts.size() + 63) / 64;
  all_bits_.assign(words, 0);
  token_groups_.reserve(tokens_.size());
  token_characters_.reserve(tokens_.size());
  up_to_.assign(kShortMax, std::vector<uint64_t>(words, 0));
  for (const TokenId id : tokens_) {
    const auto index = static_cast<size_t>(id);
    const uint64_t bit = uint64_t{1} << (index % 64);
    all_bits_[index / 64] |= bit;
    ByteGroups groups = 0;
    uint32_t characters = 0;
    uint8_t utf8 = 0;
    for (const char c : texts[index]) {
      const auto byte = static_cast<uint8_t>(c);
      if (utf8 == 0) ++characters;
      utf8 = next_utf8_state(utf8, byte);
      if (utf8 == kUtf8Broken) {
        groups |= kBrokenCharacters;
        utf8 = 0;
      }
      groups |= byte < 0x80 ? kAsciiGroups[byte] : kWholeCharacters;
    }
    token_groups_.push_back(groups);
    token_characters_.push_back(
        static_cast<uint8_t>(std::min<uint32_t>(characters, kManyCharacters)));
    if (characters > kShortMax) long_tokens_.push_back({characters, id});
    for (uint32_t limit = characters; limit <= kShortMax; ++limit) {
      up_to_[limit - 1][index / 64] |= bit;
    }
  }
}

void TokenTrie::keep_up_to(uint64_t characters, std::vector<uint64_t>& bits) const {
  if (characters <= kShortMax) {
    const std::vector<uint64_t>& kept = up_to_[characters - 1];
    for (size_t i = 0; i < bits.size(); ++i) bits[i] &= kept[i];
    return;
  }
  for (const auto& [length, id] : long_tokens_) {
    const auto index = static_cast<size_t>(id);
    if (length > characters) bits[index / 64] &= ~(uint64_t{1} << (index % 64));
  }
}

int64_t TokenTrie::memory_bytes() const {
  return static_cast<int64_t>(sizeof(Node) * nodes_.capacity() +
                              sizeof(TokenId) * tokens_.capacity() +
                              (sizeof(ByteGroups) + 1) * token_groups_.capacity() +
                              sizeof(uint64_t) * all_bits_.size() * (1 + up_to_.size()));
}

}  // namespace penstock
