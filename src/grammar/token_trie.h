// A tokenizer's vocabulary as a tree of bytes, made once per model.
//
// A grammar is asked about all tokens at once: tokens with a common beginning share the walk over
// it, and a subtree whose texts cannot leave a state is taken without looking inside. For that each
// node knows which groups of bytes occur below it and how many characters its longest text has.
//
// Special tokens (<|im_end|>) are not text and never part of the tree.
//
// Threads  immutable after create().
// Memory   16 bytes a node, 10 bytes a token, bitmaps of tokens by length: about 13 MB for 248,000
//          tokens.
// Limits   texts longer than kTokenBytesMax are left out: no grammar will offer them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
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
  size_t node_count() const { return nodes_.size() - 1; }
  size_t token_count() const { return tokens_.size(); }
  int64_t memory_bytes() const;

  // Nodes stand in the order of their texts, each before those that continue it; node 0 is the
  // empty text. The tokens at or below node n are tokens(n).
  struct Range {
    uint32_t begin = 0;
    uint32_t end = 0;
  };
  struct Node {
    uint32_t end = 0;          // the first node that is not below
    uint32_t first_token = 0;  // at or below
    ByteGroups groups = 0;     // below
    uint16_t depth = 0;
    uint8_t byte = 0;
    uint8_t characters = 0;  // below, of the longest text; kManyCharacters: that or more
    uint32_t characters_max() const {
      return characters == kManyCharacters ? static_cast<uint32_t>(kTokenBytesMax) : characters;
    }
  };
  static constexpr uint8_t kManyCharacters = 255;

  const Node& node(uint32_t index) const { return nodes_[index]; }
  Range tokens_below(uint32_t index) const {
    return {nodes_[index].first_token, nodes_[nodes_[index].end].first_token};
  }
  Range tokens_at(uint32_t index) const {
    return {nodes_[index].first_token, nodes_[index + 1].first_token};
  }
  TokenId token(uint32_t index) const { return tokens_[index]; }
  uint16_t depth_max() const { return depth_max_; }
  // The bits of all ids that have a token here.
  std::span<const uint64_t> all_bits() const { return all_bits_; }
  // Of those with at most so many characters; 1 <= characters <= kFilteredMax.
  static constexpr uint32_t kFilteredMax = 32;
  std::span<const uint64_t> bits_up_to(uint32_t characters) const { return up_to_[characters - 1]; }
  // The groups of bytes in a token's text.
  ByteGroups groups_of(TokenId id) const { return groups_by_id_[static_cast<size_t>(id)]; }

 private:
  void summarise();
  void describe_tokens(std::span<const std::string_view> texts);

  int64_t vocab_size_ = 0;
  uint16_t depth_max_ = 0;
  std::vector<Node> nodes_;      // one more at the end
  std::vector<TokenId> tokens_;  // in the order of their texts
  std::vector<uint64_t> all_bits_;
  std::vector<ByteGroups> groups_by_id_;
  std::vector<std::vector<uint64_t>> up_to_;
};

}  // namespace penstock
