#include "engine/speculation.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

struct Cost {
  int drafted = 0;
  int64_t ns = 0;
};

// Steps of 100 ns, or of `drafted_ns` with a draft that is right with every `right_every`th step.
Cost run(SpeculationSwitch& speculation, int steps, int64_t drafted_ns, int right_every) {
  Cost result;
  for (int i = 0; i < steps; ++i) {
    const bool drafted = speculation.wants_draft();
    const int64_t ns = drafted ? drafted_ns : 100;
    speculation.add_step(drafted, ns, drafted && i % right_every == 0 ? 2 : 1);
    result.drafted += drafted ? 1 : 0;
    result.ns += ns;
  }
  return result;
}

TEST(SpeculationSwitch, on_and_off_are_constant) {
  SpeculationSwitch off(Speculation::kOff), on(Speculation::kOn);
  EXPECT_EQ(run(off, 500, 1, 1).drafted, 0);
  EXPECT_EQ(run(on, 500, 1000000, 1000).drafted, 500);
}

TEST(SpeculationSwitch, goes_on_where_drafts_pay) {
  SpeculationSwitch speculation(Speculation::kAuto);
  // 120 ns for 1.5 tokens.
  const Cost result = run(speculation, 1000, 120, 2);
  EXPECT_TRUE(speculation.drafts_pay());
  EXPECT_GT(result.drafted, 900);
}

TEST(SpeculationSwitch, stops_where_they_do_not_and_tries_now_and_then) {
  SpeculationSwitch speculation(Speculation::kAuto);
  // 190 ns for 1.5 tokens: not faster than 100 for one.
  const Cost result = run(speculation, 1000, 190, 2);
  EXPECT_FALSE(speculation.drafts_pay());
  EXPECT_LT(result.drafted, 80);
  EXPECT_GT(result.drafted, 2 * SpeculationSwitch::kTrial);
  // It never costs much to look.
  EXPECT_LT(result.ns, 1000 * 100 * 108 / 100);
}

TEST(SpeculationSwitch, a_gain_within_the_noise_is_none) {
  SpeculationSwitch speculation(Speculation::kAuto);
  run(speculation, 300, 199, 1);
  EXPECT_FALSE(speculation.drafts_pay());
}

TEST(SpeculationSwitch, follows_a_change) {
  SpeculationSwitch speculation(Speculation::kAuto);
  run(speculation, 400, 250, 1);  // experts come from the disk
  EXPECT_FALSE(speculation.drafts_pay());
  run(speculation, 400, 120, 1);  // now they are in memory
  EXPECT_TRUE(speculation.drafts_pay());
  run(speculation, 400, 120, 1000);  // drafts are wrong
  EXPECT_FALSE(speculation.drafts_pay());
}

}  // namespace
}  // namespace penstock
