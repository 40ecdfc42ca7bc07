// Finds the texts of added tokens (<|im_end|>, <think>) in raw text: leftmost, then longest.
//
// The texts are kept sorted, so all that share a beginning are neighbours: matching narrows that
// range character by character. One position costs at most kAddedTokenBytesMax steps.
//
// Threads  const functions from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/token.h"

namespace penstock {

inline constexpr size_t kAddedTokenBytesMax = 256;

struct AddedToken {
  std::string text;  // not empty, at most kAddedTokenBytesMax bytes
  TokenId id = 0;
  bool is_special = false;
};

class AddedTokens {
 public:
  struct Match {
    size_t begin;
    const AddedToken* token;
  };

  // The texts are distinct.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // The first match that begins at or after `from`.
  std::optional<Match> find_in(std::string_view text, size_t from) const;

  // The token with exactly this text, or nullptr.
  const AddedToken* find(std::string_view text) const;

  // In the order of their texts.
  const std::vector<AddedToken>& all() const { return tokens_; }
  int64_t memory_bytes() const;

 private:
  // The longest token that `text` begins with, or nullptr.
  const AddedToken* longest_prefix_of(std::string_view text) const;

  std::vector<AddedToken> tokens_;  // sorted by text
  std::array<bool, 256> begins_{};  // whether a token's text begins with this byte
};

}  // namespace penstock
