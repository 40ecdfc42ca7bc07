// Keys and values in codes of eight bits, lossy by name (G13): the same bits whatever chunks, threads,
// slots, instruction set, drafts or places to go back to; and exact is what it was.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "gates/gate.h"

namespace penstock::test {
namespace {

class KvGate : public Gate {
 protected:
  EngineOptions in_codes() const {
    EngineOptions with = options();
    with.kv_form = KvForm::kCodes8;
    return with;
  }
};

INSTANTIATE_TEST_SUITE_P(Models, KvGate, ::testing::ValuesIn(kModels), name_of_gate);

TEST_P(KvGate, g13_codes_of_keys_and_values_are_another_answer_that_says_so_and_takes_less) {
  const auto exact = open_engine(options());
  const auto coded = open_engine(in_codes());
  EXPECT_FALSE(exact->is_lossy());
  EXPECT_TRUE(coded->is_lossy());
  EXPECT_FALSE(answer_of(*coded, GetParam().prompt_tokens) == resident());
  EXPECT_LT(coded->plan().kv_bytes_per_position, exact->plan().kv_bytes_per_position);
  const auto kv_of = [](const Engine& engine) {
    return std::ranges::find(engine.plan().items, "KV cache and states", &PlanItem::purpose)->bytes;
  };
  EXPECT_LT(kv_of(*coded), kv_of(*exact));
}

TEST_P(KvGate, g13_codes_of_keys_and_values_have_the_same_bits_everywhere) {
  const Answer expected = answer(in_codes());
  for (const int64_t chunk : {1, 3, 16}) {
    EngineOptions with = in_codes();
    with.chunk_tokens = chunk;
    with.threads = static_cast<int>(chunk % 4);
    with.num_slots = 9;
    EXPECT_TRUE(answer(with) == expected) << "chunks of " << chunk;
  }
  for (const std::string& target : targets_to_compare()) {
    EngineOptions with = in_codes();
    with.simd_target = target;
    EXPECT_TRUE(answer(with) == expected) << target;
  }
}

TEST_P(KvGate, g13_codes_of_a_prompt_that_is_gone_back_to_are_those_of_a_fresh_one) {
  EngineOptions with = in_codes();
  with.num_checkpoints = 2;
  const auto engine = open_engine(with);
  const std::vector<TokenId> prompt = prompt_for(*engine, GetParam().prompt_tokens);
  Session session = value_of(engine->new_session());
  GenerateOptions generate;
  generate.max_tokens = 5;
  generate.checkpoints = {10};
  const GenerateResult first = value_of(session.generate(prompt, generate, {}));
  std::vector<TokenId> other = prompt;
  for (size_t i = 12; i < other.size(); ++i) {
    other[i] = static_cast<TokenId>((other[i] + 1) % engine->config().vocab_size);
  }
  value_of(session.generate(other, generate, {}));
  const GenerateResult again = value_of(session.generate(prompt, generate, {}));
  EXPECT_GT(again.metrics.cached_tokens, 0);
  EXPECT_EQ(again.tokens, first.tokens);
  EXPECT_EQ(again.metrics.logits_hash, first.metrics.logits_hash);
}

TEST(KvDrafts, g13_drafts_change_nothing_where_keys_and_values_are_in_codes) {
  EngineOptions with = small_options(model_with_block());
  with.kv_form = KvForm::kCodes8;
  with.context = 128;
  std::vector<GenerateResult> results;
  for (const Speculation speculation : {Speculation::kOff, Speculation::kOn}) {
    with.speculation = speculation;
    const auto engine = open_engine(with);
    Session session = value_of(engine->new_session());
    results.push_back(
        continue_greedily(session, random_tokens(21, engine->config().vocab_size, 3), 24));
  }
  EXPECT_GT(results[1].metrics.drafts, 0);
  EXPECT_EQ(results[1].tokens, results[0].tokens);
  EXPECT_EQ(results[1].metrics.logits_hash, results[0].metrics.logits_hash);
}

// The trained model; a prompt of more than one page.
TEST(KvTrained, g13_codes_of_several_pages_have_the_same_bits_everywhere) {
  EngineOptions with = small_options(PENSTOCK_DEMO_MODEL);
  with.kv_form = KvForm::kCodes8;
  with.context = 640;
  const auto hash_of = [&] {
    const auto engine = open_engine(with);
    Session session = value_of(engine->new_session());
    const auto prompt = random_tokens(520, engine->config().vocab_size, 5);
    return continue_greedily(session, prompt, 6).metrics.logits_hash;
  };
  with.chunk_tokens = 256;
  const uint64_t expected = hash_of();
  with.chunk_tokens = 97;
  with.threads = 3;
  EXPECT_EQ(hash_of(), expected);
  for (const std::string& target : targets_to_compare()) {
    if (target == "SCALAR") continue;  // seconds; the small models have it
    with.simd_target = target;
    EXPECT_EQ(hash_of(), expected) << target;
  }
  with.simd_target.clear();
  with.kv_form = KvForm::kFloat32;
  EXPECT_NE(hash_of(), expected);
}

}  // namespace
}  // namespace penstock::test
