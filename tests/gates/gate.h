// What the gates compare: all that an engine answers to a prompt, over models of three shapes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "compute/cpu/cpu_backend.h"
#include "support/fake_reader.h"
#include "support/test_model.h"

namespace penstock::test {

struct GateModel {
  const char* name;
  int64_t prompt_tokens;
};

// Two shapes: many small experts with eight of 32 chosen; and one chosen of four, biases, other
// convolution.
inline constexpr GateModel kModels[] = {{"r3-wrapped", 41}, {"r2-top1", 33}, {"m2-dense", 37}};

// Of a test with such a parameter.
inline std::string name_of_gate(const ::testing::TestParamInfo<GateModel>& test) {
  std::string name = test.param.name;
  std::ranges::replace(name, '-', '_');
  return name;
}

inline std::vector<TokenId> prompt_for(const Engine& engine, int64_t tokens) {
  return random_tokens(tokens, engine.config().vocab_size, 7);
}

inline std::unique_ptr<Reader> fake_reader(uint64_t seed, FakeFaults* faults) {
  return std::make_unique<FakeReader>(FakeReaderOptions{.seed = seed}, faults);
}

// Logits of all positions, then a greedy continuation, as one list of bits.
struct Answer {
  std::vector<float> logits;
  std::vector<TokenId> tokens;
  uint64_t hash = 0;
  StoreStats store;
  int64_t chunks = 0;

  bool operator==(const Answer& other) const {
    return same_bits(logits, other.logits) && tokens == other.tokens && hash == other.hash;
  }
};

inline Answer answer_of(Engine& engine, int64_t prompt_tokens) {
  const std::vector<TokenId> prompt = prompt_for(engine, prompt_tokens);
  Answer answer;
  answer.logits = evaluate(engine, prompt).logits;
  Session session = value_of(engine.new_session());
  const GenerateResult result = continue_greedily(session, prompt, 12);
  answer.tokens = result.tokens;
  answer.hash = result.metrics.logits_hash;
  answer.chunks = result.metrics.chunks;
  answer.store = engine.experts().stats();
  return answer;
}

class Gate : public ::testing::TestWithParam<GateModel> {
 protected:
  std::string model() const { return packed_random(GetParam().name); }
  EngineOptions options() const { return small_options(model()); }
  Answer answer(const EngineOptions& with) const {
    const auto engine = open_engine(with);
    return answer_of(*engine, GetParam().prompt_tokens);
  }
  const Answer& resident() const {
    static std::map<std::string, Answer> known;
    auto [place, is_new] = known.try_emplace(GetParam().name);
    if (is_new) place->second = answer(options());
    return place->second;
  }
};

// All of this machine; on x86 with AVX2 those are at least that one and the code without vectors.
inline std::vector<std::string> targets_to_compare() {
  std::vector<std::string> targets = CpuBackend::targets();
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) {
    EXPECT_TRUE(std::ranges::count(targets, "AVX2") == 1 && targets.size() >= 2);
  }
#endif
  EXPECT_FALSE(targets.empty());
  return targets;
}

}  // namespace penstock::test
