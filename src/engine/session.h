// Session: one mutable timeline of tokens over a loaded model.
//
// A caller always hands over the whole token prefix; the session finds out how much of it it already
// holds, goes back to a kept place where it must, and evaluates the rest in chunks. So cached state
// and text cannot get out of step. What is computed does not depend on what was held: a cached
// session gives the same bits as a fresh one.
//
//   Session session = PENSTOCK_TRY(engine.new_session());
//   GenerateResult result = PENSTOCK_TRY(session.generate(prompt, options, stop));
//
// Where the engine speculates, a pass over the next token also evaluates a drafted one behind it. The
// sampler sees the same logits in the same order as without: the draft counts only if it is what the
// sampler then chooses. So speculation changes no token of any answer, greedy or sampled.
//
// Invariants  tokens() are exactly the tokens whose state is held, unless a drafted token is on trial,
//             which only happens inside of generate().
// Threads     the computing thread; `stop` may be requested from any thread
// Lifetime    a session ends before its engine
// Memory      two rows of logits at creation; pages and states are the engine's, taken as needed
// Errors      kInvalidArgument (prompt empty, too long for the context, id out of range), kIo,
//             kCorrupt, kOutOfMemory. After an error the session is what it was before.
// See also    engine/engine.h
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/metrics.h"
#include "engine/sampler.h"
#include "engine/speculation.h"
#include "text/token.h"
#include "text/token_mask.h"

namespace penstock {

class Engine;

enum class FinishReason { kStop, kLength, kCancelled };

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 0;         // 0: until the context is full
  std::vector<TokenId> stop_ids;  // never delivered
  TokenMask* mask = nullptr;      // which tokens may come; outlives the call
  // Prompt positions at which to keep a checkpoint, rising: ends of a prefix that will come again.
  std::vector<int64_t> checkpoints;
  std::function<void(TokenId)> on_token;
  std::function<void(int64_t done, int64_t total)> on_prompt;  // after each chunk
  RouteObserver on_route;
  RouteOverride reroute;  // benchmarks only: the answer is then not the model's
  // Tests and benchmarks: in place of the drafted token. `position` is its own.
  std::function<TokenId(int64_t position, TokenId drafted)> redraft;
};

struct GenerateResult {
  std::vector<TokenId> tokens;
  FinishReason finish = FinishReason::kStop;
  GenerationMetrics metrics;
};

class Session {
 public:
  // --- primitives: who serves several sessions calls these, and runs batches of his own ---

  // Gets as much of `prompt` as is held by this session or kept by the engine; what it returns
  // (tokens held) leaves at least one token to evaluate, or none where the last logits are known.
  int64_t reuse(std::span<const TokenId> prompt);
  // Evaluates what is missing of `prompt`, in chunks, so that logits() are those after its end.
  struct SyncOptions {
    std::span<const int64_t> checkpoints;  // positions to keep in the engine, rising
    std::function<void(int64_t done, int64_t total)> on_chunk;
    PassObservers observers;
  };
  Result<void> sync(std::span<const TokenId> prompt, const SyncOptions& options,
                    GenerationMetrics& metrics, const std::stop_token& stop);
  std::span<const float> logits() const { return sequence_.logits; }  // after the last token
  // Evaluates the next token, so that logits() are those after it.
  Result<void> advance(TokenId token, PhaseMetrics& phase, const std::stop_token& stop,
                       const PassObservers& observers = {});
  // Keeps the present place in the engine, for this and other sessions to come back to; on disk
  // too, where the engine keeps places there. kLong: only there, as memory has room for few.
  enum class Place { kBoundary, kLong };
  void keep_place(Place place = Place::kBoundary);
  // Where evaluating `prompt` is to stop and keep its place besides `checkpoints`: rising.
  bool keeps_long_place(int64_t position) const;
  int64_t next_long_place(int64_t position) const;  // behind it; INT64_MAX: none
  // As they are named in the engine's folder of slots; how many bytes.
  Result<uint64_t> save_as(const std::string& name) const;
  Result<uint64_t> restore_from(const std::string& name);
  StateMark snapshot() const { return sequence_.state.mark(); }
  // Back to a place of this or another session; `tokens` led to it.
  void restore(const StateMark& mark, std::span<const TokenId> tokens);
  Sequence& sequence() { return sequence_; }  // for batches

  Result<void> check_prompt(std::span<const TokenId> prompt) const;
  void reset();
  std::span<const TokenId> tokens() const { return sequence_.tokens; }
  int64_t context() const { return sequence_.state.context(); }

  // --- a whole answer ---

  Result<GenerateResult> generate(std::span<const TokenId> prompt, const GenerateOptions& options,
                                  std::stop_token stop);

  // Logits of every position of `tokens`, from an empty sequence, in order.
  Result<PhaseMetrics> evaluate(std::span<const TokenId> tokens, const RowObserver& on_logits,
                                const RouteObserver& on_route, std::stop_token stop);

  // Logits of the prediction block from every position p but the last: of token p + 2, after tokens
  // up to p + 1. Token by token, from an empty sequence; only where the engine can draft.
  Result<void> evaluate_drafts(std::span<const TokenId> tokens, const RowObserver& on_logits,
                               std::stop_token stop);

 private:
  friend class Engine;
  explicit Session(Engine& engine);

  // How much of `prompt` is held, or kept in memory.
  int64_t held_of(std::span<const TokenId> prompt) const;
  // From the disk, where more is kept there than `held`; 0: nothing came.
  int64_t reuse_from_disk(std::span<const TokenId> prompt, int64_t held);
  Result<void> make_room(int64_t positions);

  // One pass over `tokens` alone.
  Result<void> feed(std::span<const TokenId> tokens, const SegmentWish& wish, PhaseMetrics& phase,
                    const PassObservers& observers, const std::stop_token& stop);
  Result<void> decode(Sampler& sampler, const GenerateOptions& options, GenerateResult& result,
                      const std::stop_token& stop);
  // Feeds `token` to the model, with a draft of the one after it where `drafts`.
  Result<void> feed_next(TokenId token, bool drafts, const GenerateOptions& options,
                         GenerationMetrics& metrics, const std::stop_token& stop);
  Result<TokenId> draft_after(TokenId token, const GenerateOptions& options,
                              GenerationMetrics& metrics, const std::stop_token& stop);
  // The draft on trial is `token`: then it and its logits are held. Else it is dropped.
  bool settle_draft(TokenId token, GenerationMetrics& metrics);
  void drop_draft();

  Engine* engine_;
  Sequence sequence_;
  int64_t trial_ns_ = 0;  // of the draft and the pass that evaluated it
  SpeculationSwitch speculation_;
  std::chrono::steady_clock::time_point start_;  // of the request
};

}  // namespace penstock
