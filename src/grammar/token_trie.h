// A tokenizer's vocabulary as a tree of bytes, made once per model.
//
// A grammar is asked about all tokens at once: tokens with a common beginning share the walk over
// it, and a subtree whose texts cannot leave a state is taken without looking inside. For that each
// node knows which groups of bytes occur below it and how many characters its longest text has.
//
// Special tokens (<|im_end|>) are not text and never part of the tree.
//
// Threads  immutable after create().
// Memory   24 bytes a node, 8 bytes a token, bitmaps of tokens by length: about 18 MB for 248,000
//          tokens. The children of a node lie side by side: looking at them all, which a walk does
//          at every node, takes few cache lines.
// Limits   texts longer than kTokenBytesMax are left out: no grammar will offer them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/byte_groups.h"
#include "text/token.h"
#include "text/tokenizer.h"

namespace penstock {

inline constexpr size_t kTokenBytesMax = 1024;

class TokenTrie {
 public:
  // texts[id]: the bytes of a token; empty for ids that are never to be offered.
  static TokenTrie create(std::span<const std::string_view> texts);
  static TokenTrie create(const Tokenizer& tokenizer);

  int64_t vocab_size() const { return vocab_size_; }
  size_t node_count() const { return nodes_.size(); }
  size_t token_count() const { return tokens_.size(); }
  int64_t memory_bytes() const;

  // Node 0 is the empty text.
  struct Range {
    uint32_t begin = 0;
    uint32_t end = 0;
  };
  struct Node {
    uint32_t first_child = 0;
    uint32_t first_token = 0;  // of those at this node, then those below
    uint32_t end_token = 0;
    ByteGroups groups = 0;  // below
    uint16_t child_count = 0;
    uint16_t tokens_here = 0;
    uint8_t byte = 0;
    uint8_t characters = 0;  // below, of the longest text; kManyCharacters: that or more

    Range children() const { return {first_child, first_child + child_count}; }
    Range tokens() const { return {first_token, end_token}; }
    Range own_tokens() const { return {first_token, first_token + tokens_here}; }
    uint32_t characters_max() const {
      return characters == kManyCharacters ? static_cast<uint32_t>(kTokenBytesMax) : characters;
    }
  };
  static constexpr uint8_t kManyCharacters = 255;

  const Node& node(uint32_t index) const { return nodes_[index]; }
  TokenId token(uint32_t index) const { return tokens_[index]; }
  uint16_t depth_max() const { return depth_max_; }
  // The bits of all ids that have a token here.
  std::span<const uint64_t> all_bits() const { return all_bits_; }
  // Takes from `bits` the tokens with more than so many characters; at least 1.
  void keep_up_to(uint64_t characters, std::vector<uint64_t>& bits) const;
  // Characters in the text of token(index); kManyCharacters: that or more.
  uint8_t characters_of(uint32_t index) const { return token_characters_[index]; }
  // The groups of bytes in the text of token(index).
  ByteGroups groups_of(uint32_t index) const { return token_groups_[index]; }

 private:
  void grow(std::span<const std::string_view> texts);
  void summarise();
  void describe_tokens(std::span<const std::string_view> texts);

  int64_t vocab_size_ = 0;
  uint16_t depth_max_ = 0;
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;  // in the order of their texts
  std::vector<uint64_t> all_bits_;
  std::vector<ByteGroups> token_groups_;
  std::vector<uint8_t> token_characters_;
  // By length: bitmaps up to kShortMax characters, a list of what is longer.
  static constexpr uint32_t kShortMax = 32;
  std::vector<std::vector<uint64_t>> up_to_;
  std::vector<std::pair<uint32_t, TokenId>> long_tokens_;
};

}  // namespace penstock
