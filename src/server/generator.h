// Answers to prompts, one interface for whatever computes them: the engine, or a fake in tests.
//
// A request goes into a bounded queue; its events come out of the Generation that submit() returns,
// in order, and end with kFinished or kFailed. To drop or cancel() a Generation ends its request at
// any stage, and no other request notices.
//
//   auto generation = PENSTOCK_TRY(generator.submit(std::move(request)));
//   for (;;) {
//     const auto event = generation->next(heartbeat_time);
//     if (!event) tell(generation->progress());        // nothing new: a heartbeat
//     else if (is_last(*event)) break;
//   }
//
// Threads  submit() and figures() from any thread; a Generation is used by one thread at a time
// Limits   the queue's length; a request's events are bounded by its tokens
// Errors   submit(): SubmitError. Later ones come as kFailed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/histogram.h"
#include "engine/metrics.h"
#include "engine/prefix_store.h"
#include "engine/sampler.h"
#include "engine/session.h"
#include "text/token.h"
#include "text/token_mask.h"

namespace penstock {

struct GenerationRequest {
  std::vector<TokenId> prompt;
  std::vector<int64_t> checkpoints;   // ends of prefixes that will come again
  SamplingOptions sampling;           // the seed is drawn already; choice i has seed + i
  std::optional<int64_t> max_tokens;  // of each choice; 0: only read the prompt; absent: no limit
  int num_choices = 1;
  std::vector<TokenId> stop_ids;  // end it, besides those that the model's files name
  bool ignores_end = false;       // neither of these stop it
  std::vector<std::string> stop_strings;
  bool opens_reasoning = false;             // the answer begins inside <think>
  std::optional<int64_t> reasoning_budget;  // tokens, after which </think> is put in
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::optional<int> logprobs;  // how many alternatives are told with each token
  bool echo_logprobs = false;   // also for the tokens of the prompt, in kPromptToken events
  bool reuses_prefixes = true;  // false: all of the prompt is evaluated
  std::optional<int> slot;      // whose sequence it is to be; waits for that one
  // Makes the mask of one choice; it takes effect after </think>, or where it knows about the
  // reasoning itself from the beginning. May be empty. Called by the computing thread.
  std::function<std::unique_ptr<TokenMask>()> make_mask;
  bool masks_reasoning = false;
};

struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0;  // of the model, before temperature, penalties and constraints
};

struct GenerationEvent {
  enum class Kind { kStarted, kPrompt, kPromptToken, kToken, kChoiceEnded, kFinished, kFailed };
  Kind kind = Kind::kToken;
  int choice = 0;

  // kToken. The text may be empty or of several tokens: whole characters, held back while it could
  // become a stop string. kChoiceEnded brings the rest.
  TokenId token = 0;
  std::string text;
  std::optional<TokenLogprob> logprob;
  std::vector<TokenLogprob> top;  // strongest first

  // kChoiceEnded
  FinishReason reason = FinishReason::kStop;
  std::string stop_string;  // that was met; empty: a stop id, or none

  std::optional<Error> error;  // kFailed
  bool is_by_client = false;   // it asked for the end itself, or left
};

// Where a request stands, and what it has used so far.
struct GenerationProgress {
  int queue_position = 0;  // 0: it has begun
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;     // of the prompt, not evaluated again
  int64_t processed_tokens = 0;  // of the prompt, cached ones included
  int64_t prompt_ms = 0;
  int64_t queue_ms = 0;
  int64_t answer_tokens = 0;     // of all choices
  int64_t reasoning_tokens = 0;  // of these
  GenerationMetrics metrics;     // whole once it has ended
};

class Generation {
 public:
  virtual ~Generation() = default;  // cancels
  // The next event; nothing when none came for so long.
  virtual std::optional<GenerationEvent> next(std::chrono::milliseconds patience) = 0;
  virtual void cancel() = 0;
  virtual GenerationProgress progress() const = 0;
};

struct SubmitError {
  enum class Kind { kFull, kTooLong, kDraining, kStorage, kUnsupported, kInvalid };
  Kind kind = Kind::kInvalid;
  std::string message;
  int retry_after_s = 0;
};

// In seconds, of requests that have begun.
struct GenerationTimes {
  Histogram queue, first_token, between_tokens, request;
};

struct SlotFigures {
  int id = 0;
  bool is_busy = false;
  int64_t context = 0, held_tokens = 0;
};

// What is done with a slot's sequence and the file of a name, below --kv-dir.
struct SlotAction {
  enum class Kind { kSave, kRestore, kErase };
  Kind kind = Kind::kSave;
  int slot = 0;
  std::string name;  // not of kErase, which empties the slot
};

struct SlotOutcome {
  std::optional<Error> error;  // kNotFound: no such slot, or file
  bool is_busy = false;        // a request is at work in it: nothing was done
  int64_t tokens = 0;
  uint64_t bytes = 0;
  int64_t ms = 0;
};

// Requests that were given up, by who did it: a client that left, wherever its request was, or a
// server that ends.
struct CancelledRequests {
  uint64_t disconnect = 0, shutdown = 0;
};

// Requests that were refused before any work, by what was in the way.
struct RejectedRequests {
  uint64_t queue_full = 0, queue_timeout = 0, context = 0, shutdown = 0;
};

struct MemoryPart {
  std::string purpose;
  uint64_t bytes = 0;
};

// Totals since the start.
struct GeneratorFigures {
  int running = 0, waiting = 0;
  uint64_t requests = 0, failed = 0;
  CancelledRequests cancelled;
  RejectedRequests rejected;
  uint64_t prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0;
  uint64_t drafts = 0, drafts_accepted = 0;
  int64_t prompt_ns = 0, answer_ns = 0;
  StoreStats store;
  std::vector<DriveReport> drives;
  Histogram expert_reads;                         // in seconds
  uint64_t read_errors = 0, checksum_errors = 0;  // requests that these have ended
  PrefixStoreFigures prefixes;                    // on disk
  GenerationTimes seconds;
  StepTimes times;  // of answers
  uint64_t memory_budget_bytes = 0, memory_used_bytes = 0;
  std::vector<MemoryPart> memory_parts;    // of memory_used_bytes
  int64_t num_slots = 0, num_experts = 0;  // of experts
  int64_t copy_slots = 0;                  // of a copy in fewer bits
  int64_t held_tokens = 0;                 // of all sequences
  std::vector<SlotFigures> slots;
  std::string storage_fault;  // of the last request that met one; empty after one that did not
};

class Generator {
 public:
  struct Submitted {
    std::unique_ptr<Generation> generation;  // or
    SubmitError error;
  };
  virtual ~Generator() = default;
  virtual Submitted submit(GenerationRequest request) = 0;
  virtual GeneratorFigures figures() const = 0;
  // Waits until it is done, between two passes.
  virtual SlotOutcome act(const SlotAction& action) = 0;
  // No new requests; those that wait are refused, those that run go on.
  virtual void drain() = 0;
  // Those that run end with kFailed: the server is shutting down.
  virtual void stop() = 0;
};

}  // namespace penstock
