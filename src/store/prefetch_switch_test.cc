#include "store/prefetch_switch.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

// Layers of one step for which `of` experts were read ahead, of which so many were used.
void run_step(PrefetchSwitch& prefetch, int layers, int of, int used) {
  for (int layer = 0; layer < layers; ++layer) prefetch.add_layer(of, used);
  prefetch.end_step();
}

TEST(PrefetchSwitch, stays_on_while_guesses_are_right_often_enough) {
  PrefetchSwitch prefetch;
  for (int step = 0; step < 500; ++step) {
    ASSERT_TRUE(prefetch.is_on()) << step;
    run_step(prefetch, 39, 5, 2);
  }
  EXPECT_NEAR(prefetch.share(), 0.4f, 0.001f);
}

TEST(PrefetchSwitch, goes_off_within_a_few_steps_when_they_are_wrong) {
  PrefetchSwitch prefetch;
  int steps = 0;
  for (; prefetch.is_on(); ++steps) run_step(prefetch, 39, 4, 0);
  EXPECT_EQ(steps, 2);
}

TEST(PrefetchSwitch, one_bad_layer_does_not_switch_it_off) {
  PrefetchSwitch prefetch;
  prefetch.add_layer(200, 0);
  EXPECT_TRUE(prefetch.is_on());
}

TEST(PrefetchSwitch, tries_again_for_two_steps_in_64_and_stays_off_when_nothing_has_changed) {
  PrefetchSwitch prefetch;
  while (prefetch.is_on()) run_step(prefetch, 3, 4, 1);
  int steps_on = 0;
  for (int step = 0; step < 64 * 10; ++step) {
    if (prefetch.is_on()) {
      ++steps_on;
      run_step(prefetch, 3, 4, 1);
    } else {
      prefetch.end_step();
    }
  }
  EXPECT_EQ(steps_on, 2 * 10);
}

TEST(PrefetchSwitch, a_trial_of_a_few_layers_is_enough_to_come_back) {
  PrefetchSwitch prefetch;
  while (prefetch.is_on()) run_step(prefetch, 3, 4, 0);
  int steps = 0;
  for (; !prefetch.is_on(); ++steps) prefetch.end_step();
  EXPECT_EQ(steps + 1, PrefetchSwitch::kStepsOff);  // the step that switched it off was the first
  for (int step = 0; step < 200; ++step) {
    ASSERT_TRUE(prefetch.is_on()) << step;
    run_step(prefetch, 3, 4, 2);
  }
}

TEST(PrefetchSwitch, a_trial_in_which_nothing_had_to_be_read_leaves_it_on) {
  PrefetchSwitch prefetch;
  while (prefetch.is_on()) run_step(prefetch, 39, 4, 0);
  while (!prefetch.is_on()) prefetch.end_step();
  for (int step = 0; step < 10; ++step) prefetch.end_step();
  EXPECT_TRUE(prefetch.is_on());
}

}  // namespace
}  // namespace penstock
