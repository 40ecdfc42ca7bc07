#include "quality/significance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace penstock {
namespace {

TEST(Significance, a_share_of_nothing_wrong_has_an_error_too) {
  Share share{.good = 100, .of = 100};
  EXPECT_EQ(share.value(), 1);
  const double smoothed = 100.5 / 101;
  EXPECT_DOUBLE_EQ(share.error(), std::sqrt(smoothed * (1 - smoothed) / 100));
  share.add(false);
  EXPECT_DOUBLE_EQ(share.value(), 100.0 / 101);
}

// R: binom.test(2, 12)$p.value and the like.
TEST(Significance, mcnemar_is_the_binomial_test_of_the_uneven_pairs) {
  EXPECT_DOUBLE_EQ(mcnemar(0, 0), 1);
  EXPECT_DOUBLE_EQ(mcnemar(1, 1), 1);
  EXPECT_NEAR(mcnemar(2, 10), 0.03857421875, 1e-12);
  EXPECT_NEAR(mcnemar(10, 2), 0.03857421875, 1e-12);
  EXPECT_NEAR(mcnemar(0, 5), 0.0625, 1e-12);
  EXPECT_NEAR(mcnemar(0, 1000) / std::pow(0.5, 999), 1, 1e-9);
}

TEST(Significance, the_error_of_a_ratio_is_that_of_a_mean_where_documents_are_equally_long) {
  const std::vector<double> values = {1, 2, 3, 4, 5, 6}, ones(6, 1.0);
  EXPECT_NEAR(ratio_error(values, ones), std::sqrt(3.5 / 6), 1e-12);
  EXPECT_TRUE(std::isinf(ratio_error(std::vector<double>{1}, std::vector<double>{1})));
}

TEST(Significance, an_interval_holds_what_it_should_and_is_the_same_each_time) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal(0.02, 0.1);
  int hits = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<double> numerators(60), denominators(60);
    for (size_t i = 0; i < 60; ++i) {
      denominators[i] = 50 + static_cast<double>(random() % 1000);
      numerators[i] = denominators[i] * normal(random);
    }
    const Interval interval = bootstrap_95(numerators, denominators);
    EXPECT_LT(interval.low, interval.high);
    hits += interval.holds(0.02) ? 1 : 0;
    if (round > 0) continue;
    const Interval again = bootstrap_95(numerators, denominators);
    EXPECT_EQ(again.low, interval.low);
    EXPECT_EQ(again.high, interval.high);
    // About the normal one: two standard errors each way.
    EXPECT_NEAR(interval.high - interval.low, 3.92 * ratio_error(numerators, denominators),
                0.6 * ratio_error(numerators, denominators));
  }
  EXPECT_GE(hits, 50);
  EXPECT_LE(hits, 60);
}

TEST(Significance, a_difference_that_all_documents_share_is_beyond_chance) {
  const std::vector<double> change(20, 0.5), tokens(20, 100.0);
  EXPECT_FALSE(bootstrap_95(change, tokens).holds(0));
}

TEST(Significance, a_quantile_is_the_nearest_rank) {
  std::vector<float> values(1000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(1000 - i);
  EXPECT_EQ(quantile(values, 0.999), 999);
  EXPECT_EQ(quantile(values, 1), 1000);
  EXPECT_EQ(quantile(values, 0), 1);
  EXPECT_EQ(quantile({}, 0.5), 0);
}

}  // namespace
}  // namespace penstock
