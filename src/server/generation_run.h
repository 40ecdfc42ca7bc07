// One request at work: its place in the prompt, the choices of its answer, and what it needs from the
// next pass.
//
//   GenerationRun run(job, session, engine);
//   batch.add(run.sequence(), run.next_tokens(rows), run.wish());
//   ... batch.run() ...
//   run.take(figures, segment);            // samples, tells events, goes on to the next choice
//
// A choice after the first begins where the prompt ended, from a place that was kept for it. What a
// choice says follows from the request alone: not from who else was in its passes.
//
// Threads  the computing thread
// Memory   a row of logits; a sampler's counts for each token of the vocabulary
// Errors   fail() tells those of a pass; an answer whose mask lets nothing follow ends with its error,
//          and so does one whose logits are not numbers
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "server/choice_text.h"
#include "server/generation_queue.h"

namespace penstock {

class GenerationRun {
 public:
  GenerationRun(std::shared_ptr<GenerationJob> job, Session& session, Engine& engine);

  bool reads_prompt() const { return reads_prompt_; }
  bool has_ended() const { return has_ended_; }
  bool has_failed() const { return has_failed_; }  // and was not cancelled
  bool is_cancelled() const { return job_->stop().stop_requested(); }
  const std::shared_ptr<GenerationJob>& job() const { return job_; }
  Session& session() { return session_; }

  // What to evaluate next, at most so many tokens: of the prompt, or the token that was chosen.
  std::span<const TokenId> next_tokens(int64_t rows_max) const;
  SegmentWish wish(std::span<const TokenId> next);

  // After a pass that evaluated next_tokens().
  void take(const PassFigures& figures, size_t segment, int64_t rows);
  // Tokens that were told since the last call.
  uint64_t take_new_tokens() { return std::exchange(new_tokens_, 0); }
  // Adds the times of tokens to histograms: to the first, and between two.
  void set_times(GenerationTimes* times) { times_ = times; }

  void fail(const Error& error);
  // When it was cancelled: says why, and that it has ended.
  void end_cancelled(bool is_shutdown);

 private:
  using Clock = GenerationJob::Clock;

  void begin_choice();
  void finish_prompt();
  void note_time();
  bool is_end(TokenId token) const;
  void choose();                                 // the next token, and tells it
  Result<TokenId> pick(GenerationEvent& event);  // an error: no token may follow, see TokenMask
  std::optional<TokenId> forced_token(std::span<const uint64_t> allowed) const;
  void tell_logprobs(std::span<const float> logits, TokenId token, GenerationEvent& event) const;
  void echo_logprobs(int64_t row, std::span<const float> logits);
  void end_choice(FinishReason reason);
  bool wants_place(int64_t position) const;

  const std::shared_ptr<GenerationJob> job_;  // shared with the asker, see GenerationJob
  Session& session_;
  Engine& engine_;
  const Clock::time_point start_ = Clock::now();
  int choice_ = 0;
  bool reads_prompt_ = true, has_ended_ = false, has_failed_ = false;
  std::optional<Sampler> sampler_;
  std::optional<ChoiceText> text_;
  std::unique_ptr<TokenMask> mask_;
  TokenId pending_ = 0;              // chosen, and not evaluated yet
  int64_t told_ = 0, reasoned_ = 0;  // tokens of this choice; of these, before </think>
  uint64_t new_tokens_ = 0;
  GenerationTimes* times_ = nullptr;
  Clock::time_point last_token_ = start_;
  std::vector<float> logits_;
  GenerationMetrics metrics_;
  std::vector<int64_t> places_;  // positions of the prompt to keep, rising
};

}  // namespace penstock
