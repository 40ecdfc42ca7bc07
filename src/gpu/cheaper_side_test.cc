// Who is asked, by what each of two sides was said to take.
#include "gpu/cheaper_side.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

constexpr CheaperSide::Kind kKind = {2048, 512, 9};

// How often the device is asked in so many calls, where the sides take so long.
int calls_of_device(CheaperSide& cheaper, int calls, double of_processors, double of_device) {
  int count = 0;
  for (int i = 0; i < calls; ++i) {
    const Side side = cheaper.choose(kKind);
    count += side == Side::kDevice;
    cheaper.note(kKind, side, side == Side::kDevice ? of_device : of_processors);
  }
  return count;
}

TEST(CheaperSide, is_the_one_that_takes_less) {
  CheaperSide to_device, to_processors;
  EXPECT_EQ(calls_of_device(to_device, 60, 5, 1), 59);
  EXPECT_EQ(calls_of_device(to_processors, 60, 1, 5), 1);
  // Close ones are asked three times each, and soon once more.
  CheaperSide close;
  EXPECT_EQ(calls_of_device(close, 50, 1.2, 1), 50 - 3 - 2 * 3);
}

TEST(CheaperSide, what_looks_at_the_other_one_cost_is_a_small_part) {
  for (const double ratio : {1.1, 1.9, 3.0, 20.0}) {
    CheaperSide cheaper;
    calls_of_device(cheaper, 20, ratio, 1);
    constexpr int kCalls = 20'000;
    const int looks = kCalls - calls_of_device(cheaper, kCalls, ratio, 1);
    EXPECT_GT(looks, 0) << ratio;
    EXPECT_LT(looks * (ratio - 1), 0.016 * kCalls) << ratio;
  }
}

TEST(CheaperSide, follows_what_changes) {
  CheaperSide cheaper;
  calls_of_device(cheaper, 100, 1, 1.5);
  EXPECT_EQ(cheaper.choose(kKind), Side::kProcessors);
  calls_of_device(cheaper, 200, 1, 0.5);
  EXPECT_EQ(calls_of_device(cheaper, 50, 1, 0.5), 50);
  calls_of_device(cheaper, 200, 1, 3);
  EXPECT_LE(calls_of_device(cheaper, 50, 1, 3), 3);
}

// The first of some calls in a row may take long for a reason that the others have not.
TEST(CheaperSide, a_look_is_some_calls_the_shortest_of_which_counts) {
  CheaperSide cheaper;
  Side before = Side::kProcessors;
  int64_t of_device = 0;
  for (int i = 0; i < 400; ++i) {
    const Side side = cheaper.choose(kKind);
    const bool is_warm = side == Side::kDevice && before == Side::kDevice && i > 10;
    cheaper.note(kKind, side, side == Side::kProcessors ? 1 : is_warm ? 0.6 : 1.3);
    before = side;
    of_device += side == Side::kDevice;
  }
  EXPECT_GT(of_device, 360);
}

TEST(CheaperSide, does_not_take_turns_for_little) {
  CheaperSide cheaper;
  calls_of_device(cheaper, 20, 1.02, 1);
  EXPECT_GE(calls_of_device(cheaper, 50, 1, 1.03), 50 - 2 * 3);
}

// What is known of some calls says nothing of others.
TEST(CheaperSide, kinds_are_apart) {
  CheaperSide cheaper;
  calls_of_device(cheaper, 20, 5, 1);
  const CheaperSide::Kind other = {2048, 512, 4};
  EXPECT_EQ(cheaper.choose(other), Side::kDevice);
  cheaper.note(other, Side::kDevice, 1);
  EXPECT_EQ(cheaper.choose(other), Side::kProcessors);
  EXPECT_EQ(CheaperSide::row_class(9), CheaperSide::row_class(16));
  EXPECT_LT(CheaperSide::row_class(16), CheaperSide::row_class(17));
  EXPECT_EQ(CheaperSide::row_class(1), 0);
}

TEST(CheaperSide, a_rule_knows_already) {
  CheaperSide device(SideRule::kDevice), processors(SideRule::kProcessors);
  EXPECT_EQ(calls_of_device(device, 30, 1, 5), 30);
  EXPECT_EQ(calls_of_device(processors, 30, 5, 1), 0);
}

}  // namespace
}  // namespace penstock
