// Remembers the tokens of frequent pieces: most of a text is words that came before.
//
// One entry per slot, the newest wins; so the memory is fixed and nothing is searched.
//
// Threads  one at a time.
// Memory   64 bytes an entry, 1 MiB, allocated by the constructor.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "text/byte_hash.h"
#include "text/token.h"

namespace penstock {

class PieceCache {
 public:
  PieceCache() : entries_(kEntries) {}

  // Appends the tokens of the piece, if they are known.
  bool append(std::string_view piece, std::vector<TokenId>& out) const {
    if (piece.size() > kPieceBytesMax) return false;
    const Entry& entry = entries_[slot_of(piece)];
    if (std::string_view(entry.piece, entry.piece_bytes) != piece) return false;
    out.insert(out.end(), entry.ids, entry.ids + entry.id_count);
    return true;
  }

  void remember(std::string_view piece, std::span<const TokenId> ids) {
    if (piece.size() > kPieceBytesMax || ids.size() > kIdsMax) return;
    Entry& entry = entries_[slot_of(piece)];
    std::memcpy(entry.piece, piece.data(), piece.size());
    std::memcpy(entry.ids, ids.data(), ids.size_bytes());
    entry.piece_bytes = static_cast<uint8_t>(piece.size());
    entry.id_count = static_cast<uint8_t>(ids.size());
  }

  int64_t memory_bytes() const { return static_cast<int64_t>(entries_.capacity() * sizeof(Entry)); }

 private:
  static constexpr size_t kEntries = 1 << 14;
  static constexpr size_t kPieceBytesMax = 26;
  static constexpr size_t kIdsMax = 9;

  struct Entry {
    TokenId ids[kIdsMax];
    uint8_t piece_bytes = 0;  // 0: free; no piece is empty
    uint8_t id_count = 0;
    char piece[kPieceBytesMax];
  };
  static_assert(sizeof(Entry) == 64);

  static size_t slot_of(std::string_view piece) { return hash_bytes(piece) & (kEntries - 1); }

  std::vector<Entry> entries_;
};

}  // namespace penstock
