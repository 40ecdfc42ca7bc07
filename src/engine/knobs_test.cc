#include "engine/knobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace penstock {
namespace {

using testing::HasSubstr;

TEST(Knobs, have_names_of_their_own_and_a_built_in_value_within_their_range) {
  std::set<std::string_view> names;
  for (const Knob& knob : all_knobs()) {
    EXPECT_TRUE(names.insert(knob.name).second) << knob.name;
    EXPECT_LT(knob.low, knob.high) << knob.name;
    EXPECT_GE(built_in_value(knob), knob.low) << knob.name;
    EXPECT_LE(built_in_value(knob), knob.high) << knob.name;
  }
}

// Two rows for one field would undo each other, and a row that does not reach its field does nothing.
TEST(Knobs, each_sets_what_it_gets_and_nothing_else) {
  for (const Knob& knob : all_knobs()) {
    for (const int64_t value : {knob.low, knob.high}) {
      EngineOptions options;
      ASSERT_TRUE(set_knob(options, {std::string(knob.name), value}).has_value()) << knob.name;
      for (const Knob& other : all_knobs()) {
        const bool is_same = other.name == knob.name;
        EXPECT_EQ(other.get(options), is_same ? value : built_in_value(other))
            << knob.name << " and " << other.name;
      }
    }
  }
}

TEST(Knobs, values_beyond_the_range_and_unknown_names_are_refused) {
  for (const Knob& knob : all_knobs()) {
    for (const int64_t value : {knob.low - 1, knob.high + 1}) {
      EngineOptions options;
      const Result<void> refused = set_knob(options, {std::string(knob.name), value});
      ASSERT_FALSE(refused.has_value()) << knob.name;
      EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
      EXPECT_THAT(refused.error().message, HasSubstr(std::string(knob.name)));
      EXPECT_EQ(knob.get(options), built_in_value(knob));
    }
  }
  EXPECT_THAT(check_knob({"luck", 3}).error().message, HasSubstr("experts_ahead"));
}

TEST(Knobs, are_read_from_a_list) {
  const auto one = parse_knobs("experts_ahead=5");
  ASSERT_TRUE(one.has_value()) << one.error().message;
  EXPECT_EQ(*one, (std::vector<KnobSetting>{{"experts_ahead", 5}}));
  const auto two = parse_knobs("spins=0,experts_ahead=1");
  ASSERT_TRUE(two.has_value()) << two.error().message;
  EXPECT_EQ(*two, (std::vector<KnobSetting>{{"spins", 0}, {"experts_ahead", 1}}));
}

class Misspelt : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Knobs, Misspelt,
                         ::testing::Values("", ",", "spins", "spins=", "spins=x", "spins=4x",
                                           "spins=4,", "=4", "spins=-1", "spins=4000,spins=4000",
                                           "spins=99999999999999999999", "Spins=4", "spins =4"));

TEST_P(Misspelt, is_refused) {
  const auto knobs = parse_knobs(GetParam());
  ASSERT_FALSE(knobs.has_value());
  EXPECT_EQ(knobs.error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace penstock
