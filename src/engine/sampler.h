// From logits to a token: penalties, temperature, top-k, top-p, min-p, draw.
//
// The order of operations is the one in common use (docs/model.md, "Sampling"), all on float32 logits.
// Temperature 0 is greedy: the largest logit, the lower id on a tie, and no randomness at all.
// Repetition penalty looks at the prompt and the answer, presence and frequency at the answer; all of
// them only at the last repeat_last_n tokens of both, where that is set.
//
// Threads  the computing thread
// Errors  kInvalidArgument naming the option; sampling_defaults(): kCorrupt naming the key
// Source   docs/model.md, "Sampling"
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/token.h"

namespace penstock {

struct SamplingOptions {
  float temperature = 0.0f;         // 0 to 5; 0 = greedy
  int top_k = 0;                    // 0 = off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  float presence_penalty = 0.0f;    // [-2, 2]
  float frequency_penalty = 0.0f;   // [-2, 2]
  float repetition_penalty = 1.0f;  // (0, 10]
  int repeat_last_n = -1;           // tokens that penalties look at; -1: all, 0: none
  uint64_t seed = 0;

  // kInvalidArgument naming the first field that is out of range.
  Result<void> check() const;
};

// The model's own defaults, from generation_config.json. Absent fields keep theirs, and so do those
// with a value that cannot be used: a note tells, because a flag can give another. A top_k of -1 or
// 0 is off.
SamplingOptions sampling_defaults(const Json& generation_config, std::vector<std::string>& notes);

class Sampler {
 public:
  // vocab_size: ids at or above it are padding rows of the head and are never drawn.
  Sampler(const SamplingOptions& options, int64_t vocab_size, std::span<const TokenId> prompt);

  // Picks the next token and remembers it. Changes `logits`. `allowed`: one bit per token
  // (text/token_mask.h), at least one of them set; the others cannot be drawn, whatever the rest of
  // the options. Empty: all may be.
  TokenId sample(std::span<float> logits, std::span<const uint64_t> allowed = {});

 private:
  struct Candidate {
    float logit = 0;  // over the temperature
    TokenId id = 0;
    double weight = 0;  // probability relative to the strongest
  };

  static bool is_stronger(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  }
  static void forbid(std::span<float> logits, std::span<const uint64_t> allowed);
  bool has_penalties() const;
  void apply_penalties(std::span<float> logits) const;
  void remember(TokenId id);
  TokenId draw(std::span<const float> logits);
  Candidate candidate(std::span<const float> logits, size_t id) const {
    return {.logit = logits[id] / options_.temperature, .id = static_cast<TokenId>(id)};
  }
  void take_top_k(std::span<const float> logits);
  void keep_top_p(double least);
  double next_uniform();  // [0, 1)

  SamplingOptions options_;
  size_t vocab_size_;
  uint64_t random_state_;
  std::vector<int32_t> answer_counts_;  // [vocab_size]
  std::vector<bool> seen_;              // [vocab_size] in prompt or answer
  std::deque<TokenId> recent_;          // that penalties look at, where these are limited
  size_t recent_prompt_ = 0;            // of these, the first ones, which are the prompt's
  std::vector<Candidate> candidates_;
};

}  // namespace penstock
