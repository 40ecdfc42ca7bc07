#include "experts/split_experts.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock {
namespace {

using Ids = std::vector<int32_t>;

TEST(SplitExperts, ranks_below_the_first_of_the_copy_are_the_models) {
  const Routing routing{.num_tokens = 2,
                        .top_k = 3,
                        .experts = {7, 2, 5, 2, 7, 1},
                        .weights = {0.5f, 0.3f, 0.2f, 0.6f, 0.3f, 0.1f}};
  Routing first, rest;
  split_by_rank(routing, 3, first, rest);
  EXPECT_EQ(first.experts, (Ids{7, 2, kElsewhere, 2, 7, kElsewhere}));
  EXPECT_EQ(rest.experts, (Ids{kElsewhere, kElsewhere, 5, kElsewhere, kElsewhere, 1}));
  EXPECT_EQ(first.num_tokens, 2);
  EXPECT_EQ(rest.top_k, 3);
  split_by_rank(routing, 1, first, rest);
  EXPECT_EQ(first.experts, Ids(6, kElsewhere));
  EXPECT_EQ(rest.experts, routing.experts);
  split_by_rank(routing, 4, first, rest);
  EXPECT_EQ(first.experts, routing.experts);
  EXPECT_EQ(rest.experts, Ids(6, kElsewhere));
}

TEST(SplitExperts, a_choice_that_is_left_out_is_so_in_one_share) {
  const Routing routing{
      .num_tokens = 1, .top_k = 4, .experts = {7, kNoExpert, 5, kNoExpert}, .weights = {}};
  Routing first, rest;
  split_by_rank(routing, 3, first, rest);
  EXPECT_EQ(first.experts, (Ids{7, kNoExpert, kElsewhere, kElsewhere}));
  EXPECT_EQ(rest.experts, (Ids{kElsewhere, kElsewhere, 5, kNoExpert}));
}

// A routing is kept at the size of the largest call.
TEST(SplitExperts, only_the_choices_of_the_tokens_are_split) {
  const Routing routing{.num_tokens = 1, .top_k = 2, .experts = {3, 0, 7, 7}, .weights = {}};
  Routing first, rest;
  split_by_rank(routing, 2, first, rest);
  EXPECT_EQ(first.experts, (Ids{3, kElsewhere}));
  EXPECT_EQ(rest.experts, (Ids{kElsewhere, 0}));
}

}  // namespace
}  // namespace penstock
