// Finds the texts of added tokens (<|im_end|>, <think>) in text: leftmost, then longest.
//
// What becomes of a match depends on the token's flags, as the reference tokenizer has them:
// single_word wants no letter, number or underscore beside it; lstrip and rstrip take the white
// space beside it, which then is no part of any text.
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
  bool is_normalized = false;  // looked for in the normalised text, after all that are not
  bool single_word = false;
  bool takes_left = false;   // lstrip
  bool takes_right = false;  // rstrip
  bool operator==(const AddedToken&) const = default;
};

class AddedTokens {
 public:
  struct Match {
    size_t begin;
    const AddedToken* token;
  };

  // Of two with the same text the first stays.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  bool is_empty() const { return tokens_.empty(); }

  // The first match that begins at or after `from`.
  std::optional<Match> find_in(std::string_view text, size_t from) const;

  // A part of a text: a token with what it takes, or plain text (id is nothing).
  struct Part {
    size_t begin;
    size_t end;
    std::optional<TokenId> id;
  };
  // The whole text in parts, in order. As in the reference, a token that begins with white space
  // that the one before has taken counts all the same. Linear but for the match itself.
  std::vector<Part> cut(std::string_view text) const;

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
