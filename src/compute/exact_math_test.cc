// The exact functions: their error bounds, their domains, and the same bits from vectors.
#include "compute/exact_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "compute/fixed16.h"
#include "compute/test_values.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/exact_math_test.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

enum class Function { kExp, kReciprocal, kRsqrt, kSigmoid, kSilu, kProduct, kFma, kTwiceRounded };

// out[i] = function(x[i], y[i], z[i]); count is a multiple of 16.
void Apply(int function, const float* x, const float* y, const float* z, int64_t count,
           float* out) {
  const Floats d;
  const auto is = [function](Function each) { return function == static_cast<int>(each); };
  for (int64_t i = 0; i < count; i += kLanes) {
    const FloatVec a = hn::LoadU(d, x + i), b = hn::LoadU(d, y + i), c = hn::LoadU(d, z + i);
    FloatVec result = a;
    if (is(Function::kExp)) result = Exp(d, a);
    if (is(Function::kReciprocal)) result = Reciprocal(d, a);
    if (is(Function::kRsqrt)) result = ReciprocalRoot(d, a);
    if (is(Function::kSigmoid)) result = Sigmoid(d, a);
    if (is(Function::kSilu)) result = Silu(d, a);
    if (is(Function::kProduct)) result = Product(d, a, b);
    if (is(Function::kFma)) result = Fma(a, b, c);
    if (is(Function::kTwiceRounded)) result = TwiceRounded(a, b, c);
    hn::StoreU(result, d, out + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(Apply);
namespace {

using HWY_NAMESPACE::Function;

float from_bits(uint32_t bits) {
  return std::bit_cast<float>(bits);
}
uint32_t to_bits(float value) {
  return std::bit_cast<uint32_t>(value);
}

// In units of the last place of a result of this size; zero has those of the least normal number.
double error_in_units(double actual, double exact) {
  return std::fabs(actual - exact) / std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
}

// Random bits with exponents from 2^first to 2^last, of both signs.
std::vector<float> random_sizes(size_t count, int first, int last, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int> exponents(first + 127, last + 127);
  std::vector<float> values(count);
  for (float& value : values) {
    const auto bits = static_cast<uint32_t>(engine());
    value = from_bits((bits & 0x807fffffu) | static_cast<uint32_t>(exponents(engine)) << 23);
  }
  return values;
}

std::vector<float> random_from(size_t count, float low, float high, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(engine);
  return values;
}

// Halves of exponents too, where the exponent of the result changes.
std::vector<float> inputs_of_exp(float highest) {
  std::vector<float> values = random_from(1 << 20, -87, highest, 1);
  for (const float tiny : random_sizes(1 << 12, -100, 0, 2)) values.push_back(tiny);
  for (int half = -251; half <= static_cast<int>(2 * highest * 1.4427f); ++half) {
    const auto near = static_cast<float>(half * 0.5 * std::log(2.0));
    for (int step = -20; step <= 20; ++step) {
      const float value = from_bits(to_bits(near) + static_cast<uint32_t>(step));
      if (value >= -87 && value <= highest && std::fabs(value) >= 0x1p-100f) {
        values.push_back(value);
      }
    }
  }
  return values;
}

TEST(ExactMath, exp_is_off_by_one_unit_at_most) {
  double worst = 0;
  for (const float x : inputs_of_exp(88)) {
    worst = std::max(worst, error_in_units(exact_exp(x), std::exp(double{x})));
  }
  RecordProperty("worst", std::to_string(worst));
  EXPECT_LE(worst, 1.0);
  EXPECT_GT(worst, 0.5);  // it is no std::exp
}

TEST(ExactMath, exp_is_one_at_zero_and_zero_where_it_would_be_subnormal) {
  EXPECT_EQ(exact_exp(0.0f), 1.0f);
  EXPECT_EQ(exact_exp(-0.0f), 1.0f);
  EXPECT_GE(exact_exp(-87.0f), std::numeric_limits<float>::min());
  for (const float x : {-87.00001f, -88.0f, -1000.0f, -3e38f, -INFINITY}) {
    EXPECT_EQ(to_bits(exact_exp(x)), 0u) << x;
  }
  EXPECT_TRUE(std::isnan(exact_exp(NAN)));
}

// All mantissas; other exponents give the same bits with another exponent.
TEST(ExactMath, reciprocal_is_off_by_less_than_1_2_units) {
  double worst = 0;
  for (uint32_t bits = to_bits(1.0f); bits < to_bits(2.0f); ++bits) {
    const float d = from_bits(bits);
    worst = std::max(worst, error_in_units(exact_reciprocal(d), 1 / double{d}));
  }
  RecordProperty("worst", std::to_string(worst));
  EXPECT_LE(worst, 1.2);
  for (const float d : random_sizes(1 << 10, 0, 0, 3)) {
    for (int exponent = -100; exponent < 100; ++exponent) {
      EXPECT_EQ(exact_reciprocal(std::ldexp(d, exponent)),
                std::ldexp(exact_reciprocal(d), -exponent));
    }
  }
  EXPECT_TRUE(std::isnan(exact_reciprocal(NAN)));
}

TEST(ExactMath, rsqrt_is_off_by_less_than_1_3_units) {
  double worst = 0;
  for (uint32_t bits = to_bits(1.0f); bits < to_bits(4.0f); bits += 3) {
    const float d = from_bits(bits);
    worst = std::max(worst, error_in_units(exact_rsqrt(d), 1 / std::sqrt(double{d})));
  }
  RecordProperty("worst", std::to_string(worst));
  EXPECT_LE(worst, 1.3);
  for (const float sign_and_size : random_sizes(1 << 10, 0, 1, 4)) {
    const float d = std::fabs(sign_and_size);
    for (int exponent = -100; exponent < 126; exponent += 2) {
      EXPECT_EQ(exact_rsqrt(std::ldexp(d, exponent)), std::ldexp(exact_rsqrt(d), -exponent / 2));
    }
  }
}

TEST(ExactMath, sigmoid_silu_and_softplus_keep_their_bounds) {
  double sigmoid = 0, silu = 0, softplus = 0;
  for (const float x : inputs_of_exp(87)) {
    const double exact = 1 / (1 + std::exp(-double{x}));
    sigmoid = std::max(sigmoid, error_in_units(exact_sigmoid(x), exact));
    silu = std::max(silu, error_in_units(exact_silu(x), x * exact));
    const double large = x > 20 ? x : std::log1p(std::exp(double{x}));
    softplus = std::max(softplus, error_in_units(exact_softplus(x), large));
  }
  RecordProperty("sigmoid", std::to_string(sigmoid));
  RecordProperty("silu", std::to_string(silu));
  RecordProperty("softplus", std::to_string(softplus));
  EXPECT_LE(sigmoid, 3);
  EXPECT_LE(silu, 3.5);
  EXPECT_LE(softplus, 3);
}

TEST(ExactMath, sigmoid_saturates_and_keeps_what_is_not_a_number) {
  EXPECT_EQ(exact_sigmoid(0.0f), 0.5f);
  EXPECT_EQ(exact_sigmoid(1000.0f), 1.0f);
  EXPECT_EQ(exact_sigmoid(-1000.0f), 0.0f);
  EXPECT_EQ(exact_silu(0.0f), 0.0f);
  EXPECT_TRUE(std::isnan(exact_sigmoid(NAN)));
  EXPECT_TRUE(std::isnan(exact_silu(NAN)));
  EXPECT_EQ(exact_softplus(-1000.0f), 0.0f);
}

TEST(ExactMath, products_below_2_to_the_minus_100_are_zero) {
  EXPECT_EQ(exact_product(0x1p-50f, 0x1p-50f), 0x1p-100f);
  EXPECT_EQ(exact_product(-0x1p-50f, 0x1p-50f), -0x1p-100f);
  EXPECT_EQ(exact_product(0x1.fffffep-51f, 0x1p-50f), 0.0f);
  EXPECT_EQ(exact_product(-0x1p-80f, 0x1p-60f), 0.0f);
  EXPECT_TRUE(std::isnan(exact_product(NAN, 0x1p-126f)));
}

// Triples of any sizes, triples that cancel, and ones near half of a last place, where rounding
// twice goes wrong.
struct Triples {
  std::vector<float> x, y, z;
};
Triples fma_triples() {
  constexpr size_t kCount = 1 << 18;
  Triples triples = {random_sizes(4 * kCount, -30, 30, 5), random_sizes(4 * kCount, -30, 30, 6),
                     random_sizes(4 * kCount, -60, 60, 7)};
  for (size_t i = kCount; i < 2 * kCount; ++i) triples.z[i] = -triples.x[i] * triples.y[i];
  for (size_t i = 2 * kCount; i < 3 * kCount; ++i) {
    // A product of two bits far below a number: its half, a little more, a little less.
    triples.x[i] = std::ldexp(1.0f + std::ldexp(1.0f, -static_cast<int>(i % 23)), -12);
    triples.y[i] = std::ldexp(1.0f - std::ldexp(1.0f, -static_cast<int>(i / 23 % 24)), -12);
    triples.z[i] = std::ldexp(triples.z[i], -std::ilogb(triples.z[i]));
  }
  for (size_t i = 3 * kCount; i < 4 * kCount; ++i) {
    triples.x[i] = std::ldexp(triples.x[i], -60);  // results among the subnormal numbers
    triples.y[i] = std::ldexp(triples.y[i], -60);
    triples.z[i] = std::ldexp(triples.z[i], -80);
  }
  return triples;
}

TEST(ExactMath, fma_rounds_once) {
  const Triples triples = fma_triples();
  size_t different_from_twice = 0;
  for (size_t i = 0; i < triples.x.size(); ++i) {
    const float x = triples.x[i], y = triples.y[i], z = triples.z[i];
    const float expected = std::fma(x, y, z);
    ASSERT_EQ(to_bits(exact_fma(x, y, z)), to_bits(expected)) << x << " " << y << " " << z;
    different_from_twice += to_bits(x * y + z) != to_bits(expected) ? 1 : 0;
  }
  EXPECT_GT(different_from_twice, triples.x.size() / 10);
  EXPECT_EQ(exact_fma(1e38f, 10.0f, -INFINITY), -INFINITY);
  EXPECT_EQ(exact_fma(3e38f, 10.0f, 0.0f), INFINITY);
  EXPECT_TRUE(std::isnan(exact_fma(INFINITY, 0.0f, 1.0f)));
  EXPECT_TRUE(std::isnan(exact_fma(INFINITY, 1.0f, -INFINITY)));
}

TEST(Fixed16, codes_split_into_two_signed_bytes_and_into_a_signed_and_an_unsigned_one) {
  for (int32_t q = -kFixedCodeMax; q <= kFixedCodeMax; ++q) {
    const auto low = static_cast<int8_t>(q & 0xff);
    const int32_t high = (q - low) / 256;
    ASSERT_TRUE(high >= -127 && high <= 127 && 256 * high + low == q) << q;
    const int32_t floor = q >> 8;
    ASSERT_TRUE(floor >= -128 && floor <= 127 && 256 * floor + (q & 0xff) == q) << q;
  }
  EXPECT_LT((-kFixedCodeMax - 1 - static_cast<int8_t>(0x80)) / 256, -126);  // the limit is needed
}

TEST(Fixed16, no_code_leaves_its_range_and_each_is_off_by_half_a_step_and_rounding) {
  for (const float signed_size : random_sizes(1 << 16, -60, 95, 8)) {
    const float m = std::fabs(signed_size);
    const FixedScale block(m);
    ASSERT_TRUE(block.is_number());
    for (const float part : {1.0f, 0.7f, 0.5f, 0x1p-15f, -0.3f, -1.0f}) {
      const float x = m * part;
      const double code = std::nearbyint(x * block.factor);
      ASSERT_LE(std::fabs(code), kFixedCodeMax);
      ASSERT_NEAR(code * double{block.scale}, x, m * 0.513 / kFixedCodeMax);
    }
  }
  EXPECT_FALSE(FixedScale(0x1p96f).is_number());
  EXPECT_FALSE(FixedScale(INFINITY).is_number());
  EXPECT_FALSE(FixedScale(NAN).is_number());
  EXPECT_EQ(FixedScale(0.0f).scale, FixedScale(0x1p-60f).scale);
}

class ExactVectorTest : public testing::TestWithParam<std::string> {
 protected:
  std::vector<float> apply(Function function, const Triples& inputs) const {
    std::vector<float> out(inputs.x.size());
    const int64_t target = find_target(GetParam()).value().target;
    PENSTOCK_AT_TARGET(Apply, target)
    (static_cast<int>(function), inputs.x.data(), inputs.y.data(), inputs.z.data(),
     std::ssize(inputs.x), out.data());
    return out;
  }

  template <class Scalar>
  void expect_the_bits_of(Function function, const Triples& inputs, const Scalar& scalar) const {
    const std::vector<float> out = apply(function, inputs);
    for (size_t i = 0; i < out.size(); ++i) {
      const float expected = scalar(inputs.x[i], inputs.y[i], inputs.z[i]);
      if (std::isnan(expected) && std::isnan(out[i])) continue;
      ASSERT_EQ(to_bits(out[i]), to_bits(expected))
          << inputs.x[i] << ", " << inputs.y[i] << ", " << inputs.z[i];
    }
  }
};

// Sixteen vectors' worth of special values before what is given.
Triples with_special_values(std::vector<float> x) {
  const float specials[] = {0.0f,   -0.0f,  1.0f,     -1.0f,     -87.0f, -87.00001f, 88.0f, 87.0f,
                            -88.0f, -1e30f, INFINITY, -INFINITY, NAN,    -NAN,       0.5f,  2.0f};
  x.insert(x.begin(), std::begin(specials), std::end(specials));
  x.resize(x.size() / 16 * 16);
  Triples triples = {x, x, x};
  std::rotate(triples.y.begin(), triples.y.begin() + 1, triples.y.end());
  std::rotate(triples.z.begin(), triples.z.begin() + 3, triples.z.end());
  return triples;
}

TEST_P(ExactVectorTest, functions_of_one_number_have_the_bits_of_the_plain_ones) {
  const Triples below = with_special_values(inputs_of_exp(88));
  expect_the_bits_of(Function::kExp, below, [](float x, float, float) { return exact_exp(x); });
  expect_the_bits_of(Function::kSigmoid, below,
                     [](float x, float, float) { return exact_sigmoid(x); });
  expect_the_bits_of(Function::kSilu, below, [](float x, float, float) { return exact_silu(x); });
  const Triples any = with_special_values(random_sizes(1 << 18, -100, 100, 9));
  expect_the_bits_of(Function::kReciprocal, any,
                     [](float x, float, float) { return exact_reciprocal(x); });
  expect_the_bits_of(Function::kRsqrt, any, [](float x, float, float) { return exact_rsqrt(x); });
  expect_the_bits_of(Function::kSilu, any, [](float x, float, float) { return exact_silu(x); });
}

TEST_P(ExactVectorTest, functions_of_two_and_three_have_the_bits_of_the_plain_ones) {
  const Triples any = with_special_values(random_sizes(1 << 16, -70, 70, 10));
  expect_the_bits_of(Function::kProduct, any,
                     [](float x, float y, float) { return exact_product(x, y); });
  for (const Triples& triples : {any, fma_triples()}) {
    expect_the_bits_of(Function::kFma, triples,
                       [](float x, float y, float z) { return std::fma(x, y, z); });
    expect_the_bits_of(Function::kTwiceRounded, triples, [](float x, float y, float z) {
      const float product = x * y;
      return product + z;
    });
  }
}

// Within their domains no function depends on numbers that a device may take for zero.
TEST_P(ExactVectorTest, a_device_that_flushes_subnormal_numbers_gives_the_same_bits) {
  const auto in_domain = [](std::vector<float> x) { return Triples{x, x, x}; };
  std::vector<float> exponents = inputs_of_exp(88);
  exponents.resize(exponents.size() / 16 * 16);
  std::vector<float> positive = random_sizes(1 << 18, -100, 99, 11);
  for (float& value : positive) value = std::fabs(value);
  const std::pair<Function, Triples> cases[] = {
      {Function::kExp, in_domain(exponents)},
      {Function::kSigmoid, in_domain(exponents)},
      {Function::kSilu, in_domain(exponents)},
      {Function::kReciprocal, in_domain(positive)},
      {Function::kRsqrt, in_domain(positive)},
      {Function::kProduct, with_special_values(random_sizes(1 << 18, -70, 10, 12))},
  };
  for (const auto& [function, inputs] : cases) {
    const std::vector<float> kept = apply(function, inputs);
    const test::FlushSubnormals flushing;
    EXPECT_TRUE(test::same_bits(apply(function, inputs), kept)) << static_cast<int>(function);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ExactVectorTest, testing::ValuesIn(target_names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace penstock
#endif  // HWY_ONCE
