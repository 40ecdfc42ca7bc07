#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "base/check.h"

namespace penstock {

BpeMerges::BpeMerges(const std::array<TokenId, 256>& byte_ids, size_t merge_count)
    : byte_ids_(byte_ids) {
  const size_t slot_count = std::bit_ceil(std::max<size_t>(merge_count * 2, 16));
  slots_.assign(slot_count, Slot{0, kNoRank, 0});
  slot_shift_ = 64 - std::countr_zero(slot_count);
}

size_t BpeMerges::slot_of(uint64_t pair) const {
  constexpr uint64_t kGoldenRatio = 0x9E3779B97F4A7C15u;
  size_t index = ((pair ^ pair >> 32) * kGoldenRatio) >> slot_shift_;
  while (slots_[index].rank != kNoRank && slots_[index].pair != pair) {
    index = (index + 1) & (slots_.size() - 1);
  }
  return index;
}

bool BpeMerges::add(TokenId left, TokenId right, TokenId merged) {
  PENSTOCK_CHECK(merge_count_ < slots_.size() / 2);
  Slot& slot = slots_[slot_of(pair_of(left, right))];
  if (slot.rank != kNoRank) return false;
  slot = {pair_of(left, right), merge_count_++, merged};
  return true;
}

void BpeMerges::encode(std::string_view piece, BpeScratch& scratch,
                       std::vector<TokenId>& out) const {
  if (piece.size() <= kShortPieceBytes) {
    encode_short(piece, out);
  } else {
    encode_long(piece, scratch, out);
  }
}

void BpeMerges::encode_short(std::string_view piece, std::vector<TokenId>& out) const {
  TokenId ids[kShortPieceBytes];
  uint32_t ranks[kShortPieceBytes];  // ranks[i] is that of the pair (ids[i], ids[i + 1])
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) ids[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = rank_of(ids[i], ids[i + 1]);

  while (count > 1) {
    const size_t best = std::min_element(ranks, ranks + count - 1) - ranks;
    if (ranks[best] == kNoRank) break;
    ids[best] = merged_of(ids[best], ids[best + 1]);
    std::copy(ids + best + 2, ids + count, ids + best + 1);
    std::copy(ranks + best + 1, ranks + count - 1, ranks + best);
    --count;
    if (best > 0) ranks[best - 1] = rank_of(ids[best - 1], ids[best]);
    if (best + 1 < count) ranks[best] = rank_of(ids[best], ids[best + 1]);
  }
  out.insert(out.end(), ids, ids + count);
}

// The symbols are a doubly linked list through `previous` and `next`; ranks[i] is the rank of the
// pair that begins at symbol i. The heap holds rank << 32 | i, so its least entry is the pair to
// merge. An entry is stale when ranks[i] has changed since: it is skipped, not removed. A rank
// names a pair of tokens, so an entry whose rank still fits is right, whenever it was made.
void BpeMerges::encode_long(std::string_view piece, BpeScratch& scratch,
                            std::vector<TokenId>& out) const {
  PENSTOCK_CHECK(piece.size() < INT32_MAX);
  const auto count = static_cast<int32_t>(piece.size());
  std::vector<TokenId>& ids = scratch.ids;
  std::vector<int32_t>& previous = scratch.previous;
  std::vector<int32_t>& next = scratch.next;
  std::vector<uint32_t>& ranks = scratch.ranks;
  std::vector<uint64_t>& heap = scratch.heap;
  ids.resize(piece.size());
  previous.resize(piece.size());
  next.resize(piece.size());
  ranks.assign(piece.size(), kNoRank);
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    ids[i] = byte_ids_[static_cast<uint8_t>(piece[i])];
    previous[i] = i - 1;
    next[i] = i + 1;
  }

  const auto entry_of = [&](int32_t i) { return uint64_t{ranks[i]} << 32 | uint32_t(i); };
  for (int32_t i = 0; i + 1 < count; ++i) {
    ranks[i] = rank_of(ids[i], ids[i + 1]);
    if (ranks[i] != kNoRank) heap.push_back(entry_of(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  const auto rank_again = [&](int32_t i) {
    ranks[i] = next[i] < count ? rank_of(ids[i], ids[next[i]]) : kNoRank;
    if (ranks[i] == kNoRank) return;
    heap.push_back(entry_of(i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    const uint64_t entry = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto left = static_cast<int32_t>(entry & UINT32_MAX);
    if (ranks[left] != entry >> 32) continue;
    const int32_t right = next[left];
    ids[left] = merged_of(ids[left], ids[right]);
    ranks[right] = kNoRank;
    next[left] = next[right];
    if (next[left] < count) previous[next[left]] = left;
    rank_again(left);
    if (previous[left] >= 0) rank_again(previous[left]);
  }
  for (int32_t i = 0; i < count; i = next[i]) out.push_back(ids[i]);
}

}  // namespace penstock
