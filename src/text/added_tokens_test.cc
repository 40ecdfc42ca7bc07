#include "text/added_tokens.h"

#include <gtest/gtest.h>

#include <string>

#include "text/test_data.h"

namespace penstock {
namespace {

AddedTokens make(const std::vector<std::string>& texts) {
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < texts.size(); ++i) {
    tokens.push_back({texts[i], static_cast<TokenId>(i), false});
  }
  return AddedTokens(std::move(tokens));
}

TEST(AddedTokens, finds_the_leftmost_and_then_the_longest) {
  const AddedTokens tokens = make({"ab", "abcd", "bc", "x"});
  const auto match = tokens.find_in("zzabcz", 0);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->begin, 2u);
  EXPECT_EQ(match->token->text, "ab");
  EXPECT_EQ(tokens.find_in("abcd", 0)->token->text, "abcd");
  EXPECT_EQ(tokens.find_in("abcd", 1)->token->text, "bc");
  EXPECT_FALSE(tokens.find_in("acbd", 0));
  EXPECT_FALSE(make({}).find_in("anything", 0));
}

TEST(AddedTokens, agrees_with_a_plain_search_on_random_texts) {
  SplitMix64 random(11);
  const auto word = [&](size_t limit) {
    std::string text;
    const size_t length = 1 + random.below(limit);
    for (size_t i = 0; i < length; ++i) text += static_cast<char>('a' + random.below(3));
    return text;
  };
  int found = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> texts;
    for (int i = 0; i < 8; ++i) {
      const std::string text = word(5);
      if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(text);
    }
    const AddedTokens tokens = make(texts);
    const std::string text = word(12);
    std::string expected;
    size_t begin = 0;
    for (; begin < text.size() && expected.empty(); ++begin) {
      for (const std::string& candidate : texts) {
        if (text.compare(begin, candidate.size(), candidate) == 0 &&
            candidate.size() > expected.size()) {
          expected = candidate;
        }
      }
    }
    const auto match = tokens.find_in(text, 0);
    ASSERT_EQ(match.has_value(), !expected.empty());
    if (!match) continue;
    ++found;
    EXPECT_EQ(match->token->text, expected);
    EXPECT_EQ(match->begin, begin - 1);
  }
  EXPECT_GT(found, 100);
}

}  // namespace
}  // namespace penstock
