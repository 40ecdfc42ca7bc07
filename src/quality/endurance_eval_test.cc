#include "quality/endurance_eval.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace penstock {
namespace {

std::vector<TokenId> rising(size_t count, TokenId first = 0) {
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// `head` different tokens, then `times` times the same `period`.
std::vector<TokenId> looping(size_t head, size_t period, size_t times) {
  std::vector<TokenId> tokens = rising(head, 1000);
  for (size_t i = 0; i < period * times; ++i) tokens.push_back(static_cast<TokenId>(i % period));
  return tokens;
}

TEST(Endurance, a_text_without_repetition_has_none) {
  EXPECT_EQ(repeated_share(rising(500)), 0);
  EXPECT_EQ(repeated_share({}), 0);
  EXPECT_FALSE(ends_in_loop(rising(500)));
  EXPECT_FALSE(ends_in_loop({}));
}

// 100 tokens and the same 100 again: 93 runs of eight stood before.
TEST(Endurance, what_was_said_before_counts_once_for_each_token) {
  std::vector<TokenId> tokens = rising(100);
  const std::vector<TokenId> again = rising(100);
  tokens.insert(tokens.end(), again.begin(), again.end());
  EXPECT_DOUBLE_EQ(repeated_share(tokens), 93.0 / 200);
  EXPECT_FALSE(ends_in_loop(tokens)) << "twice is no loop";
}

TEST(Endurance, loops_of_every_length_are_seen_at_the_end_and_only_there) {
  for (size_t period = 1; period <= 64; ++period) {
    const size_t times = std::max<size_t>(4, 64 / period + 1);
    std::vector<TokenId> tokens = looping(300, period, times);
    EXPECT_TRUE(ends_in_loop(tokens)) << period;
    tokens.push_back(5000);
    EXPECT_FALSE(ends_in_loop(tokens)) << period;
  }
  EXPECT_FALSE(ends_in_loop(looping(300, 64, 3)));
  EXPECT_FALSE(ends_in_loop(looping(300, 1, 63)));
  EXPECT_FALSE(ends_in_loop(looping(300, 65, 4))) << "longer ones are texts";
}

}  // namespace
}  // namespace penstock
