// What the gates of GPUs compare: all that an engine says to a prompt, and that nothing was wrong with it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "engine/gpu_setup.h"
#include "gpu/test_gpu.h"
#include "support/test_model.h"

namespace penstock::test {

inline constexpr uint64_t kPlentyOfVram = 64ull << 20;  // for all that small models have

struct GpuAnswer {
  std::vector<float> logits;
  std::vector<TokenId> tokens;
  uint64_t hash = 0;

  bool operator==(const GpuAnswer& other) const {
    return same_bits(logits, other.logits) && tokens == other.tokens && hash == other.hash;
  }
};

// To a prompt of so many random tokens, and six more.
inline GpuAnswer answer_to(Engine& engine, int64_t prompt_tokens) {
  const std::vector<TokenId> prompt = random_tokens(prompt_tokens, engine.config().vocab_size, 3);
  GpuAnswer answer;
  answer.logits = evaluate(engine, prompt).logits;
  Session session = value_of(engine.new_session());
  const GenerateResult result = continue_greedily(session, prompt, 6);
  answer.tokens = result.tokens;
  answer.hash = result.metrics.logits_hash;
  return answer;
}

// The validation layers listened and said nothing.
inline void expect_silent_and_within_its_memory(const Engine& engine) {
  EXPECT_TRUE(engine.gpu()->system().is_validated());
  EXPECT_THAT(engine.gpu()->system().complaints(), ::testing::IsEmpty());
  EXPECT_LE(engine.gpu_report()->used_bytes, engine.gpu_report()->vram_bytes);
}

}  // namespace penstock::test
