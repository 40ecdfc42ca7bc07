#include "experts/routed_rows.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "experts/experts.h"

namespace penstock {
namespace {

using Ids = std::vector<int32_t>;

Ids ids(std::span<const int32_t> list) {
  return {list.begin(), list.end()};
}

Routing routing_of(int64_t tokens, int top_k, Ids experts) {
  return {.num_tokens = tokens, .top_k = top_k, .experts = std::move(experts), .weights = {}};
}

TEST(RoutedRows, one_token_asks_in_the_order_of_its_router) {
  RoutedRows rows;
  rows.turn_around(routing_of(1, 3, {7, 2, 5}), 8);
  EXPECT_EQ(ids(rows.experts()), (Ids{7, 2, 5}));
  EXPECT_EQ(ids(rows.tokens(1)), (Ids{0}));
  EXPECT_EQ(ids(rows.places(1)), (Ids{1}));
}

TEST(RoutedRows, several_tokens_ask_by_number_each_expert_once) {
  RoutedRows rows;
  rows.turn_around(routing_of(3, 2, {4, 1, 1, 6, 6, 4}), 8);
  EXPECT_EQ(ids(rows.experts()), (Ids{1, 4, 6}));
  EXPECT_EQ(ids(rows.tokens(0)), (Ids{0, 1}));
  EXPECT_EQ(ids(rows.places(0)), (Ids{1, 2}));
  EXPECT_EQ(ids(rows.tokens(1)), (Ids{0, 2}));
  EXPECT_EQ(ids(rows.places(1)), (Ids{0, 5}));
  EXPECT_EQ(ids(rows.places(2)), (Ids{3, 4}));
}

TEST(RoutedRows, choices_that_are_left_out_are_nobodys) {
  RoutedRows rows;
  rows.turn_around(routing_of(3, 2, {4, kNoExpert, 1, 6, 6, kNoExpert}), 8);
  EXPECT_EQ(ids(rows.experts()), (Ids{1, 4, 6}));
  EXPECT_EQ(ids(rows.places(1)), (Ids{0}));
  EXPECT_EQ(ids(rows.places(2)), (Ids{3, 4}));
  EXPECT_EQ(ids(rows.left_out()), (Ids{1, 5}));
  rows.turn_around(routing_of(1, 3, {7, 2, kNoExpert}), 8);
  EXPECT_EQ(ids(rows.experts()), (Ids{7, 2}));
  EXPECT_EQ(ids(rows.left_out()), (Ids{2}));
  rows.turn_around(routing_of(1, 3, {7, 2, 5}), 8);
  EXPECT_TRUE(rows.left_out().empty());
  Ids votes, ranked;
  rank_by_votes(routing_of(2, 2, {4, kNoExpert, 1, 4}), 8, votes, ranked);
  EXPECT_EQ(ranked, (Ids{4, 1}));
}

TEST(RoutedRows, choices_of_others_are_neither_computed_nor_left_out) {
  RoutedRows rows;
  rows.turn_around(routing_of(2, 3, {4, kElsewhere, kNoExpert, kElsewhere, 1, 4}), 8);
  EXPECT_EQ(ids(rows.experts()), (Ids{1, 4}));
  EXPECT_EQ(ids(rows.places(0)), (Ids{4}));
  EXPECT_EQ(ids(rows.tokens(1)), (Ids{0, 1}));
  EXPECT_EQ(ids(rows.places(1)), (Ids{0, 5}));
  EXPECT_EQ(ids(rows.left_out()), (Ids{2}));
  rows.turn_around(routing_of(1, 2, {kElsewhere, kElsewhere}), 8);
  EXPECT_TRUE(rows.experts().empty());
  EXPECT_TRUE(rows.left_out().empty());
  Ids votes, ranked;
  rank_by_votes(routing_of(2, 2, {4, kElsewhere, kElsewhere, 4}), 8, votes, ranked);
  EXPECT_EQ(ranked, (Ids{4}));
}

// A routing is kept at the size of the largest call: what lies behind it is nobody's choice.
TEST(RoutedRows, only_the_choices_of_the_tokens_count) {
  RoutedRows rows;
  rows.turn_around(routing_of(2, 1, {3, 0, 7, 7}), 8);
  EXPECT_EQ(ids(rows.experts()), (Ids{0, 3}));
}

TEST(RoutedRows, every_place_has_one_row_whatever_was_turned_around_before) {
  std::mt19937 random(3);
  RoutedRows rows;
  for (int round = 0; round < 200; ++round) {
    const int64_t tokens = 1 + static_cast<int64_t>(random() % 20);
    const int top_k = 1 + static_cast<int>(random() % 4);
    Ids chosen;
    for (int64_t i = 0; i < tokens * top_k; ++i) {
      chosen.push_back(static_cast<int32_t>(random() % 16));
    }
    rows.turn_around(routing_of(tokens, top_k, chosen), 16);
    std::set<int32_t> places;
    for (size_t i = 0; i < rows.experts().size(); ++i) {
      ASSERT_EQ(rows.tokens(i).size(), rows.places(i).size());
      for (size_t j = 0; j < rows.places(i).size(); ++j) {
        const int32_t place = rows.places(i)[j];
        EXPECT_EQ(chosen[static_cast<size_t>(place)], rows.experts()[i]);
        EXPECT_EQ(rows.tokens(i)[j], place / top_k);
        EXPECT_TRUE(places.insert(place).second);
      }
    }
    EXPECT_EQ(places.size(), chosen.size());
  }
}

TEST(RankByVotes, what_most_tokens_want_comes_first_and_equals_by_number) {
  Ids votes, ranked;
  rank_by_votes(routing_of(4, 2, {5, 1, 5, 2, 7, 2, 5, 0}), 8, votes, ranked);
  EXPECT_EQ(ranked, (Ids{5, 2, 0, 1, 7}));
  rank_by_votes(routing_of(1, 3, {6, 0, 2}), 8, votes, ranked);
  EXPECT_EQ(ranked, (Ids{6, 0, 2}));
}

}  // namespace
}  // namespace penstock
