#include "cli/suggest.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

const std::vector<std::string_view> kWords = {"run", "chat", "pack", "memory", "experts-per-token"};

TEST(Suggest, finds_the_word_behind_a_slip) {
  EXPECT_EQ(nearest("rum", kWords), "run");
  EXPECT_EQ(nearest("chatt", kWords), "chat");
  EXPECT_EQ(nearest("caht", kWords), "chat") << "swapped";
  EXPECT_EQ(nearest("memry", kWords), "memory");
  EXPECT_EQ(nearest("expert-per-token", kWords), "experts-per-token");
  EXPECT_EQ(nearest("experts_per_token", kWords), "experts-per-token");
}

TEST(Suggest, says_nothing_where_nothing_is_near) {
  EXPECT_EQ(nearest("walk", kWords), "");
  EXPECT_EQ(nearest("", kWords), "");
  EXPECT_EQ(nearest("x", kWords), "");
  EXPECT_EQ(nearest(std::string(10000, 'r'), kWords), "");
  EXPECT_EQ(nearest("run", {}), "");
  EXPECT_EQ(suggestion("walk", kWords, "--"), "");
  EXPECT_EQ(suggestion("memroy", kWords, "--"), "; did you mean --memory?");
}

}  // namespace
}  // namespace penstock
