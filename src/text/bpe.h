// Byte pair encoding: the bytes of a piece, merged pair by pair in the order of the pairs' ranks.
//
// Of all neighbouring pairs the one of lowest rank is merged, the leftmost if there are several,
// until no pair has a rank. Short pieces (nearly all) are merged in place; long ones with a heap,
// so that a piece of n bytes costs n log n.
//
// Threads  const functions from any thread; a BpeScratch from one at a time.
// Memory   one flat table, 16 bytes a slot, at most half full.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/token.h"

namespace penstock {

// Memory that merging one long piece needs, kept from piece to piece.
struct BpeScratch {
  std::vector<TokenId> ids;
  std::vector<int32_t> previous;
  std::vector<int32_t> next;
  std::vector<uint32_t> ranks;
  std::vector<uint64_t> heap;
};

class BpeMerges {
 public:
  // byte_ids: the token of each single byte.
  BpeMerges(const std::array<TokenId, 256>& byte_ids, size_t merge_count);

  // The next rank: `left` and `right` become `merged`. False if the pair has a rank already.
  // At most merge_count times.
  bool add(TokenId left, TokenId right, TokenId merged);

  // Appends the tokens of `piece` to `out`. Pieces are shorter than 2^31 bytes.
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<TokenId>& out) const;

  int64_t memory_bytes() const { return static_cast<int64_t>(slots_.capacity() * sizeof(Slot)); }

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  static constexpr size_t kShortPieceBytes = 48;

  struct Slot {
    uint64_t pair;  // left << 32 | right
    uint32_t rank;  // kNoRank: the slot is free
    TokenId merged;
  };

  static uint64_t pair_of(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  // The slot of the pair, or the free one where it would go.
  size_t slot_of(uint64_t pair) const;
  uint32_t rank_of(TokenId left, TokenId right) const {
    return slots_[slot_of(pair_of(left, right))].rank;
  }
  TokenId merged_of(TokenId left, TokenId right) const {
    return slots_[slot_of(pair_of(left, right))].merged;
  }
  void encode_short(std::string_view piece, std::vector<TokenId>& out) const;
  void encode_long(std::string_view piece, BpeScratch& scratch, std::vector<TokenId>& out) const;

  std::array<TokenId, 256> byte_ids_;
  std::vector<Slot> slots_;
  int slot_shift_;
  uint32_t merge_count_ = 0;
};

}  // namespace penstock
