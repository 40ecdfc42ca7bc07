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
  const auto open = [&](uint8_t byte, size_t depth, size_t token) {
    Node node;
    node.byte = byte;
    node.depth = static_cast<uint16_t>(depth);
    node.first_token = static_cast<uint32_t>(token);
    trie.nodes_.push_back(node);
    trie.depth_max_ = std::max(trie.depth_max_, node.depth);
  };
  const auto next = [&] { return static_cast<uint32_t>(trie.nodes_.size()); };
  std::vector<uint32_t> path = {0};  // open nodes, by depth
  const auto close_to = [&](size_t depth) {
    for (; path.size() > depth + 1; path.pop_back()) trie.nodes_[path.back()].end = next();
  };
  open(0, 0, 0);
  std::string_view last;
  for (size_t i = 0; i < trie.tokens_.size(); ++i) {
    const std::string_view text = text_of(trie.tokens_[i]);
    const auto parted = std::ranges::mismatch(last, text).in2;
    const auto shared = static_cast<size_t>(parted - text.begin());
    close_to(shared);
    for (size_t depth = shared; depth < text.size(); ++depth) {
      path.push_back(next());
      open(static_cast<uint8_t>(text[depth]), depth + 1, i);
    }
    last = text;
  }
  close_to(0);
  trie.nodes_[0].end = next();
  open(0, 0, trie.tokens_.size());  // one more: where the last ranges end
  trie.nodes_.back().end = next();
  trie.nodes_.shrink_to_fit();
  trie.summarise();
  trie.describe_tokens(texts);
  return trie;
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
  // Inside a character at most three more bytes are followed, then the sum of a node further down
  // is there already: nodes are done from the last to the first.
  const auto inside = [&](const auto& self, uint32_t at, uint8_t utf8) -> Below {
    const Node& node = nodes_[at];
    if (utf8 == 0) return {node.groups | kWholeCharacters, more(node.characters)};
    Below sum{kWholeCharacters, 1};
    for (uint32_t child = at + 1; child < node.end; child = nodes_[child].end) {
      const uint8_t next = next_utf8_state(utf8, nodes_[child].byte);
      Below below{kBrokenCharacters, 0};
      if (next != kUtf8Broken) below = self(self, child, next);
      sum.groups |= below.groups;
      sum.characters = std::max(sum.characters, below.characters);
    }
    return sum;
  };
  for (auto at = static_cast<uint32_t>(node_count()); at-- > 0;) {
    Node& node = nodes_[at];
    for (uint32_t child = at + 1; child < node.end; child = nodes_[child].end) {
      const Node& inner = nodes_[child];
      Below below;
      if (inner.byte < 0x80) {
        below = {inner.groups | kAsciiGroups[inner.byte], more(inner.characters)};
      } else {
        const uint8_t utf8 = next_utf8_state(0, inner.byte);
        below = utf8 == kUtf8Broken ? Below{kBrokenCharacters, 0} : inside(inside, child, utf8);
      }
      node.groups |= below.groups;
      node.characters = std::max(node.characters, below.characters);
    }
  }
}

void TokenTrie::describe_tokens(std::span<const std::string_view> texts) {
  const size_t words = (texts.size() + 63) / 64;
  all_bits_.assign(words, 0);
  groups_by_id_.assign(texts.size(), ~ByteGroups{0});
  up_to_.assign(kFilteredMax, std::vector<uint64_t>(words, 0));
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
    groups_by_id_[index] = groups;
    for (uint32_t limit = characters; limit <= kFilteredMax; ++limit) {
      up_to_[limit - 1][index / 64] |= bit;
    }
  }
}

int64_t TokenTrie::memory_bytes() const {
  return static_cast<int64_t>(sizeof(Node) * nodes_.capacity() +
                              sizeof(TokenId) * tokens_.capacity() +
                              sizeof(ByteGroups) * groups_by_id_.capacity() +
                              sizeof(uint64_t) * all_bits_.size() * (1 + up_to_.size()));
}

}  // namespace penstock
