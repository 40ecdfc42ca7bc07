#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

namespace penstock {
namespace {

// What the options say, in the simplest words: probabilities of all tokens, in double.
std::map<TokenId, double> probabilities(const SamplingOptions& options,
                                        const std::vector<float>& logits) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(options.top_k)));
  const auto weight = [&](size_t id) {
    return std::exp(static_cast<double>(logits[id] / options.temperature) -
                    static_cast<double>(logits[order.front()] / options.temperature));
  };
  double total = 0;
  for (const size_t id : order) total += weight(id);
  std::map<TokenId, double> kept;
  double sum = 0;
  for (const size_t id : order) {
    if (!kept.empty() && options.top_p < 1 && sum >= options.top_p * total) break;
    sum += weight(id);
    if (weight(id) >= options.min_p) kept[static_cast<TokenId>(id)] = weight(id);
  }
  double kept_sum = 0;
  for (const auto& [id, w] : kept) kept_sum += w;
  for (auto& [id, w] : kept) w /= kept_sum;
  return kept;
}

std::vector<float> some_logits(size_t count, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> value(0, spread);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = value(random);
  logits[count / 3] = logits[count / 2];  // a tie
  return logits;
}

class Draws : public testing::TestWithParam<SamplingOptions> {};
INSTANTIATE_TEST_SUITE_P(
    Options, Draws,
    testing::Values(SamplingOptions{.temperature = 1},
                    SamplingOptions{.temperature = 0.7f, .top_k = 5},
                    SamplingOptions{.temperature = 1.3f, .top_p = 0.6f},
                    SamplingOptions{.temperature = 1, .top_p = 0.999f},
                    SamplingOptions{.temperature = 1, .top_p = 1e-6f},
                    SamplingOptions{.temperature = 1, .min_p = 0.2f},
                    SamplingOptions{.temperature = 1, .top_k = 40, .top_p = 0.8f, .min_p = 0.05f},
                    SamplingOptions{.temperature = 1, .top_k = 1},
                    SamplingOptions{.temperature = 1, .top_k = 1 << 20}));

TEST_P(Draws, come_as_often_as_their_probability_says) {
  for (const size_t vocab : {7, 60, 900}) {
    const std::vector<float> logits = some_logits(vocab, 2, static_cast<uint32_t>(vocab));
    const std::map<TokenId, double> expected = probabilities(GetParam(), logits);
    SamplingOptions options = GetParam();
    options.seed = 5;
    Sampler sampler(options, static_cast<int64_t>(vocab), {});
    constexpr int kDraws = 20'000;
    std::map<TokenId, int> counts;
    for (int i = 0; i < kDraws; ++i) {
      std::vector<float> copy = logits;
      ++counts[sampler.sample(copy)];
    }
    for (const auto& [id, count] : counts) {
      ASSERT_TRUE(expected.contains(id)) << "token " << id << " had been filtered out";
    }
    for (const auto& [id, probability] : expected) {
      const double mean = probability * kDraws;
      EXPECT_NEAR(counts[id], mean, 5 * std::sqrt(mean) + 3) << "token " << id << " of " << vocab;
    }
  }
}

TEST_P(Draws, are_the_same_for_the_same_seed) {
  const std::vector<float> logits = some_logits(500, 1, 3);
  SamplingOptions options = GetParam();
  options.seed = 77;
  Sampler a(options, 500, {}), b(options, 500, {});
  for (int i = 0; i < 50; ++i) {
    std::vector<float> for_a = logits, for_b = logits;
    EXPECT_EQ(a.sample(for_a), b.sample(for_b));
  }
}

TEST(Sampler, greedy_takes_the_lower_id_of_a_tie_and_no_padding) {
  Sampler sampler({}, 4, {});
  std::vector<float> logits = {1, 3, 3, 2, 9};
  EXPECT_EQ(sampler.sample(logits), 1);
}

TEST(Sampler, greedy_finds_the_largest_wherever_it_is) {
  for (size_t count = 1; count < 50; ++count) {
    for (size_t place = 0; place < count; ++place) {
      std::vector<float> logits(count, -3.0f);
      logits[place] = -2.5f;
      if (place + 1 < count) logits[place + 1] = -2.5f;
      Sampler sampler({.temperature = 0}, static_cast<int64_t>(count), {});
      EXPECT_EQ(sampler.sample(logits, {}), static_cast<TokenId>(place)) << count;
    }
  }
}

TEST(Sampler, penalties_count_what_was_said) {
  Sampler sampler({.frequency_penalty = 1.5f, .repetition_penalty = 2.0f}, 3,
                  std::vector<TokenId>{2});
  std::vector<TokenId> said;
  for (int i = 0; i < 4; ++i) {
    std::vector<float> logits = {3, 2.5f, 4};  // the third is in the prompt: halved
    said.push_back(sampler.sample(logits));
  }
  // 3 | 1.5 - 1.5, 2.5 | 0, 1.25 - 1.5, 2 | 0, -0.25, 2 - 1.5
  EXPECT_EQ(said, (std::vector<TokenId>{0, 1, 2, 2}));
}

std::vector<TokenId> greedy_answer(SamplingOptions options, const std::vector<TokenId>& prompt,
                                   int tokens) {
  Sampler sampler(options, 4, prompt);
  std::vector<TokenId> said;
  for (int i = 0; i < tokens; ++i) {
    std::vector<float> logits = {3, 2, 1, 0};
    said.push_back(sampler.sample(logits));
  }
  return said;
}

TEST(Sampler, penalties_look_back_as_far_as_they_are_told) {
  using Said = std::vector<TokenId>;
  const auto repeats = [](int last) {
    return SamplingOptions{.repetition_penalty = 10.0f, .repeat_last_n = last};
  };
  // All of it: 0.3, 2, 1 | 0.3, 0.2, 1 | 0.3, 0.2, 0.1.
  EXPECT_EQ(greedy_answer(repeats(-1), {0, 3}, 3), (Said{1, 2, 0}));
  EXPECT_EQ(greedy_answer(repeats(0), {0, 3}, 3), (Said{0, 0, 0}));
  // The last token alone: 3 of the prompt, then what was just said.
  EXPECT_EQ(greedy_answer(repeats(1), {0, 3}, 4), (Said{0, 1, 0, 1}));
  // What stands twice in sight still counts when the first of both is out of it; ids beyond the
  // vocabulary may be there too.
  EXPECT_EQ(greedy_answer(repeats(2), {0, 0}, 4), (Said{1, 2, 0, 1}));
  EXPECT_EQ(greedy_answer(repeats(2), {9, 0}, 3), (Said{1, 2, 0}));
  const SamplingOptions counted{.presence_penalty = 2.0f, .frequency_penalty = 2.0f};
  EXPECT_EQ(greedy_answer(counted, {0, 1}, 5), (Said{0, 1, 2, 3, 0}));
  SamplingOptions near = counted;
  near.repeat_last_n = 2;
  EXPECT_EQ(greedy_answer(near, {0, 1}, 5), (Said{0, 1, 2, 0, 1}));
  near.repeat_last_n = -2;
  EXPECT_FALSE(near.check().has_value());
}

TEST(Sampler, what_a_mask_forbids_is_never_drawn) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0, 3);
  constexpr size_t kVocab = 200;
  for (const SamplingOptions& options :
       {SamplingOptions{}, SamplingOptions{.temperature = 1.5f},
        SamplingOptions{.temperature = 5.0f, .top_k = 40},
        SamplingOptions{.temperature = 1.0f, .top_k = 5, .top_p = 0.9f, .min_p = 0.05f},
        SamplingOptions{.temperature = 2.0f, .top_p = 0.5f, .repetition_penalty = 1.3f}}) {
    Sampler sampler(options, kVocab, {});
    for (int round = 0; round < 300; ++round) {
      std::vector<float> logits(kVocab);
      for (float& logit : logits) logit = normal(random);
      std::vector<uint64_t> allowed(round % 2 == 0 ? 4 : 2, 0);  // short ones forbid the rest
      const size_t count = 1 + random() % 3;
      for (size_t i = 0; i < count; ++i) {
        const size_t id = random() % 120;
        allowed[id / 64] |= uint64_t{1} << (id % 64);
      }
      const auto id = static_cast<size_t>(sampler.sample(logits, allowed));
      ASSERT_LT(id, kVocab);
      ASSERT_LT(id / 64, allowed.size());
      EXPECT_TRUE((allowed[id / 64] >> (id % 64) & 1) != 0);
    }
  }
}

TEST(Sampler, a_mask_that_allows_all_changes_nothing) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 3);
  const SamplingOptions options{.temperature = 1.0f, .top_k = 20, .top_p = 0.95f, .seed = 3};
  Sampler free(options, 100, {});
  Sampler masked(options, 100, {});
  const std::vector<uint64_t> all(2, ~uint64_t{0});
  for (int round = 0; round < 200; ++round) {
    std::vector<float> logits(100);
    for (float& logit : logits) logit = normal(random);
    std::vector<float> same = logits;
    ASSERT_EQ(free.sample(logits), masked.sample(same, all));
  }
}

// What generation_config.json says: used, or told and left alone, but never in the way of a flag.
TEST(SamplingDefaults, values_of_other_programs_are_used_or_told) {
  struct Case {
    const char* config;
    float temperature;
    int top_k;
    float top_p;
    size_t notes;
  };
  const Case cases[] = {
      {"{}", 0, 0, 1, 0},
      {"null", 0, 0, 1, 0},
      {R"({"do_sample": true})", 1, 0, 1, 0},
      {R"({"do_sample": true, "temperature": 0.5, "top_k": 20, "top_p": 0.8})", 0.5f, 20, 0.8f, 0},
      {R"({"do_sample": false, "temperature": 0.5, "top_k": 20})", 0, 20, 1, 0},
      {R"({"do_sample": true, "temperature": 0})", 0, 0, 1, 0},
      {R"({"do_sample": true, "top_k": -1})", 1, 0, 1, 0},
      {R"({"do_sample": null, "temperature": null, "top_k": null, "top_p": null})", 0, 0, 1, 0},
      {R"({"do_sample": true, "top_k": -2})", 1, 0, 1, 1},
      {R"({"do_sample": true, "top_k": 1e9})", 1, 0, 1, 1},
      {R"({"do_sample": true, "top_k": "20"})", 1, 0, 1, 1},
      {R"({"do_sample": true, "top_k": 20.0})", 1, 20, 1, 0},
      {R"({"do_sample": true, "temperature": 9, "top_p": 0})", 1, 0, 1, 2},
      {R"({"do_sample": true, "temperature": -1, "top_p": 1.5})", 1, 0, 1, 2},
      {R"({"do_sample": "yes", "top_p": []})", 0, 0, 1, 2},
      {R"({"min_p": 2, "presence_penalty": -3, "frequency_penalty": 3, "repetition_penalty": 0})",
       0, 0, 1, 4},
  };
  for (const Case& c : cases) {
    std::vector<std::string> notes;
    const SamplingOptions options = sampling_defaults(*parse_json(c.config, "test"), notes);
    EXPECT_EQ(options.temperature, c.temperature) << c.config;
    EXPECT_EQ(options.top_k, c.top_k) << c.config;
    EXPECT_EQ(options.top_p, c.top_p) << c.config;
    EXPECT_EQ(notes.size(), c.notes) << c.config;
    EXPECT_TRUE(options.check().has_value()) << c.config;
    for (const std::string& note : notes) {
      EXPECT_NE(note.find("generation_config.json"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace penstock
