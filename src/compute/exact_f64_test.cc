// The functions in f64: near to the true values, their f32 the right ones, the same bits
// everywhere.
#include "compute/exact_f64.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>

namespace penstock {
namespace {

constexpr int kSamples = 200000;

class Uniform {
 public:
  double operator()(double low, double high) {
    return low + (high - low) * (static_cast<double>(engine_() >> 11) * 0x1p-53);
  }

 private:
  std::mt19937_64 engine_{1};
};

TEST(ExactF64, exp_log_and_power_agree_with_the_library_to_some_last_places) {
  Uniform uniform;
  for (int i = 0; i < kSamples; ++i) {
    const double x = uniform(-690, 690);
    ASSERT_NEAR(exact_exp64(x) / std::exp(x), 1, 1e-15) << x;
    const double y = std::exp(uniform(-100, 100));
    ASSERT_NEAR(exact_log64(y), std::log(y), 1e-15 * std::fabs(std::log(y)) + 1e-17) << y;
    const double base = uniform(1e4, 1e7), exponent = uniform(0, 1);
    ASSERT_NEAR(exact_power64(base, exponent) / std::pow(base, exponent), 1, 4e-15);
  }
}

TEST(ExactF64, sine_and_cosine_round_to_the_same_f32_as_the_library_s) {
  Uniform uniform;
  int different = 0;
  for (int i = 0; i < kSamples; ++i) {
    const double angle = static_cast<float>(uniform(0, i % 2 == 0 ? 100.0 : 4e6));
    const auto [sine, cosine] = exact_sine_cosine64(angle);
    ASSERT_NEAR(sine, std::sin(angle), 1e-15) << angle;
    ASSERT_NEAR(cosine, std::cos(angle), 1e-15) << angle;
    different += static_cast<float>(sine) != static_cast<float>(std::sin(angle)) ? 1 : 0;
    different += static_cast<float>(cosine) != static_cast<float>(std::cos(angle)) ? 1 : 0;
  }
  EXPECT_LE(different, 2);
}

TEST(ExactF64, at_the_edges) {
  EXPECT_EQ(exact_exp64(0), 1);
  EXPECT_EQ(exact_exp64(-INFINITY), 0);
  EXPECT_EQ(exact_exp64(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(exact_exp64(NAN)));
  EXPECT_EQ(exact_log64(1), 0);
  EXPECT_EQ(exact_log64(0), -INFINITY);
  EXPECT_EQ(exact_log64(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(exact_log64(-1)));
  EXPECT_EQ(exact_sine_cosine64(0).sine, 0);
  EXPECT_EQ(exact_sine_cosine64(0).cosine, 1);
  EXPECT_EQ(exact_sine_cosine64(-3).sine, -exact_sine_cosine64(3).sine);
}

// The same number on every processor and from every compiler.
TEST(ExactF64, bits_are_those_recorded) {
  Uniform uniform;
  uint64_t hash = 0;
  const auto add = [&hash](double value) {
    hash = (hash ^ std::bit_cast<uint64_t>(value)) * 0x100000001b3u;
    hash ^= hash >> 29;
  };
  for (int i = 0; i < 10000; ++i) {
    add(exact_exp64(uniform(-100, 100)));
    add(exact_log64(uniform(0.01, 100)));
    const auto [sine, cosine] = exact_sine_cosine64(uniform(-1e5, 1e5));
    add(sine);
    add(cosine);
  }
  EXPECT_EQ(hash, 0xadeee54888039facu);
}

}  // namespace
}  // namespace penstock
