#include "text/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "text/test_data.h"

namespace penstock {
namespace {

using Pairs = std::map<std::pair<TokenId, TokenId>, std::pair<uint32_t, TokenId>>;

std::array<TokenId, 256> identity() {
  std::array<TokenId, 256> ids{};
  for (int i = 0; i < 256; ++i) ids[i] = i;
  return ids;
}

// The definition, word by word: merge the leftmost pair of the lowest rank until there is none.
std::vector<TokenId> encode_plainly(const Pairs& pairs, std::string_view piece) {
  std::vector<TokenId> ids;
  for (const char byte : piece) ids.push_back(static_cast<uint8_t>(byte));
  for (;;) {
    size_t best = ids.size();
    std::pair<uint32_t, TokenId> best_merge{UINT32_MAX, 0};
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = pairs.find({ids[i], ids[i + 1]});
      if (found != pairs.end() && found->second.first < best_merge.first) {
        best = i;
        best_merge = found->second;
      }
    }
    if (best == ids.size()) return ids;
    ids[best] = best_merge.second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Bpe, merges_like_the_definition_on_random_merges_and_pieces) {
  SplitMix64 random(1);
  int pieces_with_merges = 0;
  for (int round = 0; round < 60; ++round) {
    Pairs pairs;
    BpeMerges merges(identity(), 60);
    std::vector<TokenId> known = {'a', 'b', 'c', 'd'};
    for (uint32_t rank = 0; rank < 60;) {
      const TokenId left = known[random.below(known.size())];
      const TokenId right = known[random.below(known.size())];
      const TokenId merged = 256 + static_cast<TokenId>(rank);
      if (!pairs.try_emplace({left, right}, rank, merged).second) continue;
      EXPECT_TRUE(merges.add(left, right, merged));
      known.push_back(merged);
      ++rank;
    }
    BpeScratch scratch;
    for (int i = 0; i < 20; ++i) {
      std::string piece;
      const size_t length = 1 + random.below(i % 2 == 0 ? 30 : 300);  // both algorithms
      for (size_t k = 0; k < length; ++k) piece += static_cast<char>('a' + random.below(4));
      std::vector<TokenId> ids = {-7};
      merges.encode(piece, scratch, ids);
      std::vector<TokenId> expected = encode_plainly(pairs, piece);
      pieces_with_merges += expected.size() < piece.size() ? 1 : 0;
      expected.insert(expected.begin(), -7);
      ASSERT_EQ(ids, expected) << piece;
    }
  }
  EXPECT_GT(pieces_with_merges, 1000);
}

TEST(Bpe, refuses_a_second_rank_for_a_pair) {
  BpeMerges merges(identity(), 2);
  EXPECT_TRUE(merges.add('a', 'b', 256));
  EXPECT_FALSE(merges.add('a', 'b', 257));
}

TEST(Bpe, encodes_a_megabyte_of_one_letter_in_one_piece) {
  BpeMerges merges(identity(), 12);
  TokenId previous = 'a';
  for (TokenId id = 256; id < 268; ++id) {  // up to 4096 letters in a token
    ASSERT_TRUE(merges.add(previous, previous, id));
    previous = id;
  }
  BpeScratch scratch;
  std::vector<TokenId> ids;
  merges.encode(std::string((1 << 20) + 3, 'a'), scratch, ids);
  ASSERT_EQ(ids.size(), 256u + 2u);
  EXPECT_TRUE(std::all_of(ids.begin(), ids.begin() + 256, [](TokenId id) { return id == 267; }));
  EXPECT_EQ(ids[256], 256);
  EXPECT_EQ(ids[257], 'a');
}

}  // namespace
}  // namespace penstock
