#include "model/expert_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "experts/experts.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

// Two tokens of four choices.
Routing routing() {
  return {.num_tokens = 2,
          .top_k = 4,
          .experts = {7, 3, 5, 1, 2, 0, 6, 4},
          .weights = {0.5f, 0.25f, 0.125f, 0.125f, 0.875f, 0.0625f, 0.03125f, 0.03125f}};
}

TEST(ExpertLimits, without_a_limit_nothing_changes) {
  Routing limited = routing();
  limit_choices({}, 0, true, limited);
  EXPECT_EQ(limited.experts, routing().experts);
  EXPECT_EQ(limited.weights, routing().weights);
}

TEST(ExpertLimits, of_a_layer_the_strongest_stay_and_sum_to_one) {
  Routing limited = routing();
  limit_choices({.by_layer = {4, 2}, .weight = 1}, 1, true, limited);
  EXPECT_THAT(limited.experts, ElementsAre(7, 3, kNoExpert, kNoExpert, 2, 0, kNoExpert, kNoExpert));
  EXPECT_THAT(limited.weights, ElementsAre(FloatEq(2 / 3.f), FloatEq(1 / 3.f), 0, 0,
                                           FloatEq(14 / 15.f), FloatEq(1 / 15.f), 0, 0));
  limited = routing();
  limit_choices({.by_layer = {4, 2}, .weight = 1}, 0, true, limited);
  EXPECT_EQ(limited.experts, routing().experts) << "the first layer has all";
  limit_choices({.by_layer = {4, 2}, .weight = 1}, 2, true, limited);
  EXPECT_EQ(limited.experts, routing().experts) << "the list says nothing of the third";
}

TEST(ExpertLimits, of_the_weight_each_token_takes_as_many_as_it_needs) {
  Routing limited = routing();
  limit_choices({.by_layer = {}, .weight = 0.75}, 0, true, limited);
  EXPECT_THAT(limited.experts,
              ElementsAre(7, 3, kNoExpert, kNoExpert, 2, kNoExpert, kNoExpert, kNoExpert));
  EXPECT_EQ(limited.weights[4], 1);
  limited = routing();
  limit_choices({.by_layer = {}, .weight = 1e-9}, 0, true, limited);
  EXPECT_EQ(limited.experts[0], 7) << "one stays";
  EXPECT_EQ(limited.weights[0], 1);
}

TEST(ExpertLimits, weights_that_do_not_sum_to_one_stay_as_they_are) {
  Routing limited = routing();
  for (float& weight : limited.weights) weight /= 4;
  limit_choices({.by_layer = {3}, .weight = 0.75}, 0, false, limited);
  EXPECT_EQ(limited.weights[0], 0.125f);
  EXPECT_EQ(limited.weights[1], 0.0625f);
  EXPECT_EQ(limited.experts[2], kNoExpert) << "a share is of what was chosen";
}

TEST(ExpertLimits, lists_are_read_and_told) {
  const auto limits = parse_layer_limits("8*2,6,3*1");
  ASSERT_TRUE(limits);
  EXPECT_THAT(*limits, ElementsAre(8, 8, 6, 3));
  EXPECT_EQ(to_text(ExpertLimits{.by_layer = *limits, .weight = 0.9}),
            "8*2,6,3 by layer, 0.9 of the weight");
  EXPECT_EQ(to_text(ExpertLimits{.by_layer = {}, .weight = 0.5}), "0.5 of the weight");
  EXPECT_NE(to_text(ExpertLimits{.by_layer = {}, .weight = 0.9}),
            to_text(ExpertLimits{.by_layer = {}, .weight = 0.90000000000000013}))
      << "answers that may differ have different texts";
  for (const char* text : {"", ",", "8,", "0", "-1", "8*0", "8*", "*8", "8*9999", "8x2", "8 ",
                           "4096*4096,1", "99999999999999999999"}) {
    const auto refused = parse_layer_limits(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(ExpertLimits, what_does_not_fit_the_model_is_refused_by_its_flag) {
  EXPECT_TRUE(check_limits({}, 3, 8));
  EXPECT_TRUE(check_limits({.by_layer = {8, 1, 4}, .weight = 0.5}, 3, 8));
  const auto flag_of = [](const ExpertLimits& limits) {
    const auto checked = check_limits(limits, 3, 8);
    return checked ? std::string("taken") : checked.error().message.substr(0, 24);
  };
  const std::string list = "--lossy-experts-by-layer", weight = "--lossy-expert-weight: ";
  for (const std::vector<int>& by_layer :
       std::vector<std::vector<int>>{{8, 8}, {8, 8, 8, 8}, {8, 9, 8}, {8, 0, 8}, {-1, 8, 8}}) {
    EXPECT_EQ(flag_of({.by_layer = by_layer, .weight = 1}), list);
  }
  for (const double share : {0.0, -0.5, 1.5, std::nan("")}) {
    EXPECT_EQ(flag_of({.by_layer = {}, .weight = share}).substr(0, weight.size()), weight);
  }
}

}  // namespace
}  // namespace penstock
