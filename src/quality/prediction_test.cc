#include "quality/prediction.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace penstock {
namespace {

constexpr size_t kVocabulary = 300;

std::vector<float> random_logits(uint64_t seed, float spread = 3) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(kVocabulary);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

std::vector<float> near(std::vector<float> logits, uint64_t seed, float spread) {
  const std::vector<float> noise = random_logits(seed, spread);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] += noise[i];
  return logits;
}

std::vector<std::byte> position_of(std::span<const float> logits, TokenId target, int top) {
  std::vector<TokenId> scratch;
  std::vector<std::byte> bytes;
  append_position(logits, target, top, scratch, bytes);
  return bytes;
}

std::vector<double> softmax(std::span<const float> logits) {
  std::vector<double> p(logits.size());
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(static_cast<double>(logits[i]));
  for (double& value : p) value /= sum;
  return p;
}

// Over the whole vocabulary, as the books have it.
double divergence(std::span<const float> of, std::span<const float> from) {
  const std::vector<double> p = softmax(of), q = softmax(from);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] * std::log(p[i] / q[i]);
  return sum;
}

TEST(Prediction, the_likelihood_is_that_of_the_softmax) {
  const std::vector<float> logits = random_logits(1);
  EXPECT_NEAR(negative_log_likelihood(logits, 7), -std::log(softmax(logits)[7]), 1e-12);
}

TEST(Prediction, of_equal_tokens_the_first_is_the_most_likely) {
  EXPECT_EQ(most_likely(std::vector<float>{1, 3, 3, 2}), 1);
  const auto bytes = position_of(std::vector<float>{1, 3, 3, 2}, 0, 2);
  const std::vector<float> second_first = {1, 3, 4, 2};
  EXPECT_TRUE(compare_position(bytes, 2, std::vector<float>{1, 3, 3, 2}).is_same_top);
  EXPECT_FALSE(compare_position(bytes, 2, second_first).is_same_top);
}

TEST(Prediction, a_position_has_the_bytes_that_it_says_and_keeps_the_texts_token) {
  const std::vector<float> logits = random_logits(2);
  const auto bytes = position_of(logits, 11, 64);
  EXPECT_EQ(bytes.size(), position_bytes(64));
  EXPECT_NEAR(position_log_likelihood(bytes), -negative_log_likelihood(logits, 11), 1e-6);
}

TEST(Prediction, a_model_is_almost_no_nats_from_itself) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> logits = random_logits(seed);
    const PositionChange change = compare_position(position_of(logits, 0, 64), 64, logits);
    EXPECT_GE(change.divergence, 0);
    EXPECT_LT(change.divergence, 1e-7);
    EXPECT_TRUE(change.is_same_top);
  }
}

// Sixteen bits and summing to 1 again change each probability by at most 5e-4 of itself, and with it its
// term of the divergence; the logarithms that change are of second order.
double code_error(std::span<const float> of, std::span<const float> from) {
  const std::vector<double> p = softmax(of), q = softmax(from);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] * std::abs(std::log(p[i] / q[i]));
  return 5e-4 * sum + 1e-7;
}

TEST(Prediction, with_all_tokens_kept_the_divergence_is_the_books) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> base = random_logits(seed);
    for (const float spread : {0.05f, 0.3f, 2.0f}) {
      const std::vector<float> other = near(base, seed + 1000, spread);
      const double whole = divergence(base, other);
      const auto bytes = position_of(base, 0, static_cast<int>(kVocabulary));
      EXPECT_NEAR(compare_position(bytes, kVocabulary, other).divergence, whole,
                  code_error(base, other));
    }
  }
}

TEST(Prediction, with_few_tokens_kept_the_divergence_is_below_and_rises_with_more) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> base = random_logits(seed, 1), other = near(base, seed + 1000, 0.5f);
    const double whole = divergence(base, other);
    double before = 0;
    for (const int top : {1, 8, 64, 200}) {
      const double kept = compare_position(position_of(base, 0, top), top, other).divergence;
      EXPECT_LE(kept, whole + code_error(base, other)) << top;
      EXPECT_GE(kept, before - code_error(base, other)) << top;
      before = kept;
    }
    EXPECT_GT(before, 0.6 * whole);
  }
}

TEST(Prediction, probabilities_beyond_16_bits_count_as_nothing) {
  const std::vector<float> base = {0, -200, -300}, other = {0, -1, -2};
  const PositionChange change = compare_position(position_of(base, 0, 2), 2, other);
  EXPECT_NEAR(change.divergence, -std::log(softmax(other)[0]), 1e-6);
  EXPECT_EQ(change.rest, 0);
}

TEST(Prediction, a_position_of_a_larger_vocabulary_does_not_fit) {
  std::vector<float> logits = random_logits(3);
  logits.back() = 50;
  const auto bytes = position_of(logits, 0, 4);
  EXPECT_TRUE(position_fits(bytes, 4, kVocabulary));
  EXPECT_FALSE(position_fits(bytes, 4, kVocabulary - 1));
}

TEST(Prediction, a_likelihood_that_is_no_number_does_not_fit) {
  std::vector<std::byte> bytes = position_of(random_logits(4), 0, 4);
  bytes[2] = bytes[3] = std::byte{0xff};
  EXPECT_FALSE(position_fits(bytes, 4, kVocabulary));
}

}  // namespace
}  // namespace penstock
