#include "text/tokenizer.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "text/nfc.h"
#include "text/piece_cache.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

namespace penstock {

struct Tokenizer::Parts {
  explicit Parts(TokenizerTables from_file) : tables(std::move(from_file)) {
    special.resize(static_cast<size_t>(tables.vocabulary.id_count()));
    added.resize(special.size());
    for (const AddedToken& token : tables.added.all()) {
      special[token.id] = token.is_special;
      added[token.id] = true;
    }
  }

  // Text between added tokens that are looked for in raw text.
  void encode_between(std::string_view text, SpecialTokens mode, PieceCache* cache_or_null,
                      std::vector<TokenId>& out) const;
  // Normalised text without added tokens.
  void encode_plain(std::string_view text, PieceCache* cache, std::vector<TokenId>& out) const;
  void encode_piece(std::string_view piece, PieceCache* cache, BpeScratch& scratch,
                    std::vector<TokenId>& out) const;

  const TokenizerTables tables;
  std::vector<bool> special;  // by id
  std::vector<bool> added;    // by id

  // A shortcut, never a source of other ids: the call that gets the lock uses the cache, a call at
  // the same time does without.
  mutable std::mutex cache_mutex;
  mutable PieceCache cache;
};

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::create(std::string_view tokenizer_json, std::string_view what,
                                    int64_t embedding_rows) {
  return create(TokenizerFiles{tokenizer_json, what}, embedding_rows);
}

Result<Tokenizer> Tokenizer::create(const TokenizerFiles& files, int64_t embedding_rows) {
  TokenizerTables tables = PENSTOCK_TRY(read_tokenizer(files, embedding_rows));
  return Tokenizer(std::make_unique<Parts>(std::move(tables)));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  const std::unique_lock lock(parts_->cache_mutex, std::try_to_lock);
  PieceCache* cache = lock.owns_lock() ? &parts_->cache : nullptr;

  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + 1);
  if (special == SpecialTokens::kAsText || parts_->tables.raw.is_empty()) {
    parts_->encode_between(text, special, cache, ids);
    return ids;
  }
  for (const AddedTokens::Part& part : parts_->tables.raw.cut(text)) {
    if (part.id) {
      ids.push_back(*part.id);
    } else {
      parts_->encode_between(text.substr(part.begin, part.end - part.begin), special, cache, ids);
    }
  }
  return ids;
}

void Tokenizer::Parts::encode_between(std::string_view text, SpecialTokens mode,
                                      PieceCache* cache_or_null, std::vector<TokenId>& out) const {
  std::string nfc;
  if (tables.is_nfc && nfc_prefix_bytes(text) < text.size()) {
    nfc = to_nfc(text);
    text = nfc;
  }
  if (mode == SpecialTokens::kAsText || tables.normalized.is_empty()) {
    encode_plain(text, cache_or_null, out);
    return;
  }
  for (const AddedTokens::Part& part : tables.normalized.cut(text)) {
    if (part.id) {
      out.push_back(*part.id);
    } else {
      encode_plain(text.substr(part.begin, part.end - part.begin), cache_or_null, out);
    }
  }
}

void Tokenizer::Parts::encode_plain(std::string_view text, PieceCache* cache_or_null,
                                    std::vector<TokenId>& out) const {
  BpeScratch scratch;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(text, begin, tables.pattern);
    encode_piece(text.substr(begin, end - begin), cache_or_null, scratch, out);
    begin = end;
  }
}

void Tokenizer::Parts::encode_piece(std::string_view piece, PieceCache* cache_or_null,
                                    BpeScratch& scratch, std::vector<TokenId>& out) const {
  if (cache_or_null != nullptr && cache_or_null->append(piece, out)) return;
  const size_t before = out.size();
  tables.merges.encode(piece, scratch, out);
  if (cache_or_null != nullptr) {
    cache_or_null->remember(piece, std::span(out).subspan(before));
  }
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string text;
  for (const TokenId id : ids) {
    if (!skip_special || !is_special(id)) text += token_bytes(id);
  }
  return text;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  return parts_->tables.vocabulary.bytes_of(id);
}

bool Tokenizer::is_special(TokenId id) const {
  return id >= 0 && id < vocab_size() && parts_->special[id];
}

bool Tokenizer::is_added(TokenId id) const {
  return id >= 0 && id < vocab_size() && parts_->added[id];
}

std::optional<Tokenizer::AddedMatch> Tokenizer::find_added(std::string_view text,
                                                           size_t from) const {
  const auto match = parts_->tables.any.find_in(text, from);
  if (!match) return std::nullopt;
  return AddedMatch{match->begin, match->begin + match->token->text.size(), match->token->id};
}

std::optional<std::string> Tokenizer::as_normalised(std::string_view text) const {
  const TokenizerTables& tables = parts_->tables;
  if (!tables.is_nfc || tables.normalized.is_empty()) return std::nullopt;
  if (!is_valid_utf8(text)) return to_nfc(replace_invalid_utf8(text));
  if (nfc_prefix_bytes(text) == text.size()) return std::nullopt;
  return to_nfc(text);
}

const std::vector<std::string>& Tokenizer::notes() const {
  return parts_->tables.notes;
}

std::optional<TokenId> Tokenizer::find(std::string_view token) const {
  const AddedToken* added = parts_->tables.added.find(token);
  if (added != nullptr) return added->id;
  return parts_->tables.vocabulary.find(token);
}

int64_t Tokenizer::vocab_size() const {
  return parts_->tables.vocabulary.id_count();
}

int64_t Tokenizer::memory_bytes() const {
  const TokenizerTables& tables = parts_->tables;
  return static_cast<int64_t>(sizeof(Parts) +
                              (parts_->special.capacity() + parts_->added.capacity()) / 8) +
         tables.vocabulary.memory_bytes() + tables.merges.memory_bytes() +
         tables.added.memory_bytes() + tables.raw.memory_bytes() +
         tables.normalized.memory_bytes() + tables.any.memory_bytes() +
         parts_->cache.memory_bytes();
}

}  // namespace penstock
