// Weights: quantised ones, experts that are left out on purpose, memory that is not to be had for them
// (G11, G13, G14).
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/memory.h"
#include "gates/gate.h"

namespace penstock::test {
namespace {

void expect_quantised_weights_to_stream_and_chunk_alike(Arithmetic arithmetic) {
  EngineOptions options = small_options(PENSTOCK_DEMO_MODEL);
  options.arithmetic = arithmetic;
  const auto engine = open_engine(options);
  const std::vector<TokenId> prompt = random_tokens(24, engine->config().vocab_size, 5);
  Session session = value_of(engine->new_session());
  const GenerateResult expected = continue_greedily(session, prompt, 6);
  struct Variation {
    int64_t slots, chunk;
    int threads;
    std::string simd_target = {};
  };
  std::vector<Variation> variations = {{64, 0, 1}, {64, 5, 2}, {9, 24, 3}, {0, 1, 2}};
  for (const std::string& target : targets_to_compare()) {
    variations.push_back({64, 7, 2, target});
  }
  for (const Variation& v : variations) {
    EngineOptions with = options;
    with.simd_target = v.simd_target;
    with.num_slots = v.slots;
    with.chunk_tokens = v.chunk;
    with.threads = v.threads;
    const auto other = open_engine(with);
    Session streamed = value_of(other->new_session());
    const GenerateResult result = continue_greedily(streamed, prompt, 6);
    EXPECT_EQ(result.metrics.logits_hash, expected.metrics.logits_hash)
        << v.slots << " slots, chunks of " << v.chunk << ", " << v.threads << " threads "
        << v.simd_target;
    if (v.slots > 0) {
      EXPECT_GT(other->experts().stats().evictions, 0u);
    }
  }
}

TEST(Gates, g11_quantised_weights_stream_and_chunk_alike_in_fixed_point) {
  expect_quantised_weights_to_stream_and_chunk_alike(Arithmetic::kFixed16);
}

TEST(Gates, g11_quantised_weights_stream_and_chunk_alike_in_float) {
  expect_quantised_weights_to_stream_and_chunk_alike(Arithmetic::kFloat32);
}

TEST(Gates, g13_fewer_experts_per_token_is_reported_as_lossy) {
  EngineOptions with = small_options(packed_random("r3-wrapped"));
  const auto exact = open_engine(with);
  EXPECT_FALSE(exact->is_lossy());
  with.experts_per_token = 4;
  const auto lossy = open_engine(with);
  EXPECT_TRUE(lossy->is_lossy());
  const std::vector<TokenId> prompt = random_tokens(9, exact->config().vocab_size, 1);
  EXPECT_FALSE(same_bits(evaluate(*exact, prompt).logits, evaluate(*lossy, prompt).logits));
}

// What is left out follows from the router alone: the same bits from memory, streamed, in chunks of any
// size, on any number of threads.
TEST(Gates, g13_experts_left_out_by_layer_or_weight_are_the_same_ones_everywhere) {
  EngineOptions with = small_options(packed_random("r3-wrapped"));
  const auto exact = open_engine(with);
  const std::vector<TokenId> prompt = random_tokens(29, exact->config().vocab_size, 1);
  const auto exact_logits = evaluate(*exact, prompt).logits;
  const uint64_t exact_requests = exact->experts().stats().requests;
  const auto layers = static_cast<size_t>(exact->config().num_expert_layers());
  const int chosen = static_cast<int>(exact->experts_per_token());
  ASSERT_GT(chosen, 1);
  std::vector<int> falling(layers, chosen);
  falling.back() = 1;
  for (const ExpertLimits& limits :
       {ExpertLimits{.by_layer = falling, .weight = 1}, ExpertLimits{.by_layer = {}, .weight = 0.6},
        ExpertLimits{.by_layer = falling, .weight = 0.8}}) {
    with = small_options(packed_random("r3-wrapped"));
    with.expert_limits = limits;
    const auto engine = open_engine(with);
    EXPECT_TRUE(engine->is_lossy());
    const auto expected = evaluate(*engine, prompt).logits;
    EXPECT_FALSE(same_bits(expected, exact_logits)) << to_text(limits);
    EXPECT_LE(engine->experts().stats().requests, exact_requests) << to_text(limits);
    for (const int64_t chunk : {1, 3, 16}) {
      with.chunk_tokens = chunk;
      with.num_slots = chosen;
      with.threads = static_cast<int>(chunk % 4);
      with.prefetch = chunk != 3;
      const auto streamed = open_engine(with);
      EXPECT_TRUE(same_bits(evaluate(*streamed, prompt).logits, expected)) << to_text(limits);
      EXPECT_GT(streamed->experts().stats().evictions, 0u);
    }
  }
  with = small_options(packed_random("r3-wrapped"));
  with.expert_limits = {.by_layer = std::vector<int>(layers, chosen), .weight = 1};
  EXPECT_TRUE(same_bits(evaluate(*open_engine(with), prompt).logits, exact_logits))
      << "a list that leaves nothing out";
}

TEST(Gates, g13_limits_that_do_not_fit_the_model_are_refused) {
  EngineOptions with = small_options(packed_random("r3-wrapped"));
  const auto layers = static_cast<size_t>(open_engine(with)->config().num_expert_layers());
  for (const std::vector<int>& list :
       {std::vector<int>(layers + 1, 1), std::vector<int>(layers - 1, 1),
        std::vector<int>(layers, 1000)}) {
    with.expert_limits.by_layer = list;
    const auto refused = Engine::open(posix_storage(), with, {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(refused.error().message.find("--lossy-experts-by-layer"), std::string::npos);
  }
}

TEST(Gates, g14_any_allocation_that_fails_while_loading_is_an_error) {
  const EngineOptions with = small_options(packed_random("r3-wrapped"));
  int failures = 0;
  for (int64_t n = 0; n < 100; ++n) {
    fail_allocation_after(n);
    auto engine = Engine::open(posix_storage(), with, {});
    Result<Session> session = engine ? (*engine)->new_session() : Result<Session>(engine.error());
    fail_allocation_after(-1);
    if (session) break;
    EXPECT_EQ(session.error().code, ErrorCode::kOutOfMemory) << session.error().message;
    ++failures;
  }
  EXPECT_GE(failures, 4);  // weights, slots, activations, kernel scratch, states
  EXPECT_LT(failures, 100);
  const auto engine = open_engine(with);
  EXPECT_FALSE(evaluate(*engine, random_tokens(3, 100, 1)).logits.empty());
}

}  // namespace
}  // namespace penstock::test
