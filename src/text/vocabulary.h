// Which bytes each ordinary token stands for, and back; and the alphabet in which files spell them.
//
// tokenizer.json writes a byte as one printable character (the byte 0x20 as U+0120), so that every
// token is readable text. Inside the program tokens are plain bytes.
//
// Threads  const functions from any thread once filled.
// Memory   the bytes in one blob, 8 bytes an id, a hash table of 4 to 8 bytes a token.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/token.h"

namespace penstock {

// The bytes that a token's spelling stands for; nothing if a character is not of the byte alphabet.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);

// The spelling of one byte.
std::string spelling_of_byte(uint8_t byte);

class Vocabulary {
 public:
  Vocabulary() = default;

  // Room for ids [0, id_count) and token_count tokens.
  Vocabulary(int64_t id_count, size_t token_count);

  // False, and nothing is changed, if the id has a token already. 0 <= id < id_count.
  bool add(TokenId id, std::string_view bytes);

  // Empty if the id has no token.
  std::string_view bytes_of(TokenId id) const;
  bool has(TokenId id) const;

  // If several tokens have the same bytes, the one that was added first.
  std::optional<TokenId> find(std::string_view bytes) const;

  int64_t id_count() const { return static_cast<int64_t>(spans_.size()); }
  int64_t memory_bytes() const;

 private:
  struct Span {
    uint32_t begin;
    uint32_t bytes;
  };
  static constexpr uint32_t kNoToken = UINT32_MAX;  // in Span::begin
  static constexpr TokenId kFree = -1;

  // The slot of the token with these bytes, or the free one where it would go.
  size_t slot_of(std::string_view bytes) const;

  std::string blob_;
  std::vector<Span> spans_;     // by id
  std::vector<TokenId> slots_;  // open addressing by the hash of the bytes
};

}  // namespace penstock
