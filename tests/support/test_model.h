// What whole-engine tests share: small checkpoints packed into a temporary folder, engines opened
// on them with chosen limits, logits as plain vectors.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"

namespace penstock::test {

// tests/data of this source tree.
std::string data_path(const std::string& relative);

// A folder that is removed at the end of the program.
std::string temporary_folder();

// Value, or a failed test that says why not.
template <class T>
T value_of(Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message;
    throw std::runtime_error(result.error().message);
  }
  if constexpr (!std::is_void_v<T>) return std::move(result).value();
}

// The packed form of a Hugging Face folder, made once per program. Precision nullopt: keep.
std::string packed(const std::string& source, std::optional<DType> experts = std::nullopt,
                   std::optional<DType> resident = std::nullopt);

// A checkpoint of tests/data/random, packed at its own precision.
std::string packed_random(const std::string& name);

// A small synthetic model with a prediction block, made once per program. Its weights are random, so
// its drafts are hardly ever right; the block has keys and values of its own in a state. Models of one
// seed differ in their experts alone.
std::string model_with_block(DType experts = DType::kQ4, uint64_t seed = 1);

// Options for a small model: one thread, no budget to speak of, no eye on the machine's memory.
EngineOptions small_options(const std::string& model);

std::unique_ptr<Engine> open_engine(const EngineOptions& options);

// What one evaluation of a prompt gave: every row of logits, every choice of the router.
struct Evaluation {
  int64_t vocab_size = 0;
  std::vector<float> logits;                  // [n, vocab]
  std::vector<std::vector<int32_t>> experts;  // [layer][n * k]
  std::vector<std::vector<float>> weights;    // [layer][n * k]
  PhaseMetrics metrics;
};
Evaluation evaluate(Engine& engine, std::span<const TokenId> tokens);

// Greedy continuation.
GenerateResult continue_greedily(Session& session, std::span<const TokenId> prompt, int64_t tokens);

// Bits, not values: -0 differs from 0 and NaN equals itself.
bool same_bits(std::span<const float> a, std::span<const float> b);

// n tokens from a seed, below vocab_size.
std::vector<TokenId> random_tokens(int64_t n, int64_t vocab_size, uint64_t seed);

}  // namespace penstock::test
