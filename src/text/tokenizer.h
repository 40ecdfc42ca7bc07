// Text to token ids and back: byte-level BPE as described by a Hugging Face tokenizer.json.
//
// The ids must be those of the reference tokenizer (PyPI `tokenizers`) for every text, because a
// model has only ever seen that cut. Accepted is what the Qwen2, Qwen3-Next and Qwen3.5 families
// use: NFC or no normaliser, their two split patterns, byte-level BPE; anything else is refused
// rather than approximated. The steps of encode():
//
//   invalid UTF-8 -> U+FFFD;  cut at added tokens;  NFC;  cut at normalised added tokens;
//   cut into pieces;  merge bytes by rank
//
// Not done: the file's truncation and padding; nothing is added before or after the text.
//
// Threads  after create() any number of threads may call the const functions.
// Memory   flat tables and one blob of bytes: 16 MB for 248,000 tokens, plus 1 MB that remembers
//          frequent pieces. create() needs about seven times the file's size for a moment.
// Limits   encode() takes linear time but for a logarithm in the length of one piece, which is what
//          a text of one million equal letters is.
// Errors   create(): kCorrupt (names the key), kUnsupported (names the feature).
// Source   tokenizer.json of Qwen3.5 and Qwen3-Next; behaviour measured on tokenizers 0.23.
// See also pretokenizer.h, bpe.h, nfc.h, added_tokens.h
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/added_token_files.h"
#include "text/token.h"

namespace penstock {

enum class SpecialTokens {
  kParse,   // the texts of added tokens (<|im_end|>, <think>) become those tokens
  kAsText,  // no added token is recognised, special or not: for text that we do not trust
};

class Tokenizer {
 public:
  // `what` names the file in errors. embedding_rows: rows of the model's embedding, which every id
  // must be below; 0 if unknown.
  static Result<Tokenizer> create(std::string_view tokenizer_json, std::string_view what,
                                  int64_t embedding_rows);
  // The same with what the files beside it say of added tokens.
  static Result<Tokenizer> create(const TokenizerFiles& files, int64_t embedding_rows);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Invalid UTF-8 is read as Python's errors="replace" reads it.
  std::vector<TokenId> encode(std::string_view text,
                              SpecialTokens special = SpecialTokens::kParse) const;

  // The bytes of the tokens, one after the other: possibly not valid UTF-8 (see Utf8Stream). Ids
  // without a token give nothing.
  std::string decode(std::span<const TokenId> ids, bool skip_special = false) const;

  // The bytes that a token stands for; empty for ids without a token (also negative ones).
  std::string_view token_bytes(TokenId id) const;

  // An added token, special or not.
  bool is_added(TokenId id) const;

  // The first place at or after `from` where the text of an added token stands, whether or not its
  // flags would let it be recognised there; the longest that begins there. Looked for in the bytes
  // as they are; as_normalised() gives those in which normalised tokens are looked for.
  struct AddedMatch {
    size_t begin;
    size_t end;
    TokenId id;
  };
  std::optional<AddedMatch> find_added(std::string_view text, size_t from) const;

  // The text as the normaliser leaves it; nothing if that is how it is, or if no added token is
  // looked for in normalised text.
  std::optional<std::string> as_normalised(std::string_view text) const;

  // What a person should know of the files: tokens that were left out.
  const std::vector<std::string>& notes() const;

  // Marked "special" among the added tokens: hidden when decoding with skip_special.
  bool is_special(TokenId id) const;

  // The token that stands for exactly these bytes, added tokens first.
  std::optional<TokenId> find(std::string_view token) const;

  int64_t vocab_size() const;  // highest id + 1
  int64_t memory_bytes() const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace penstock
