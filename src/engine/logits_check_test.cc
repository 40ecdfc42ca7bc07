#include "engine/logits_check.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace penstock {
namespace {

TEST(LogitsCheck, numbers_pass_and_anything_else_is_found_at_any_place) {
  using Limits = std::numeric_limits<float>;
  std::vector<float> logits(1003);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 0.01f * static_cast<float>(i) - 3;
  logits[1] = Limits::max();
  logits[2] = -Limits::max();
  logits[3] = Limits::denorm_min();
  EXPECT_TRUE(check_logits(logits, 5).has_value());
  EXPECT_TRUE(check_logits({}, 5).has_value());
  const float wrong[] = {Limits::quiet_NaN(), -Limits::quiet_NaN(), Limits::signaling_NaN(),
                         Limits::infinity(), -Limits::infinity()};
  for (const float value : wrong) {
    for (const size_t place : {size_t{0}, size_t{17}, logits.size() - 1}) {
      std::vector<float> spoiled = logits;
      spoiled[place] = value;
      const Result<void> checked = check_logits(spoiled, 42);
      ASSERT_FALSE(checked.has_value());
      EXPECT_EQ(checked.error().code, ErrorCode::kCorrupt);
      EXPECT_NE(checked.error().message.find("position 42"), std::string::npos);
      EXPECT_NE(checked.error().message.find("token " + std::to_string(place)), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace penstock
