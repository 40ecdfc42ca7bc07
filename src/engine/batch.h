// One pass of the model over rows of one or several sequences.
//
// A server adds the next token of every answer that is running and a piece of a prompt that is being
// read, and runs the batch: each layer's experts are read once for all of them. A single session does
// the same with itself alone. What each sequence computes does not depend on who else is in the pass.
//
//   Batch batch(engine.parts());
//   batch.add(a, next_of_a);
//   batch.add(b, piece_of_b, {.logits_of = LogitsOf::kNone});
//   const PassFigures figures = PENSTOCK_TRY(batch.run(stop));
//
// A pass is a transaction: when it fails or is cancelled, every sequence is what it was before. To
// cancel one sequence, leave it out of the next pass; `stop` ends the whole pass.
//
// Threads  the computing thread; `stop` may be requested from any thread
// Errors   run(): kIo, kCorrupt, kCancelled (of the experts); kOutOfMemory when there are more
//          sequences than were planned for
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "base/thread_pool.h"
#include "engine/metrics.h"
#include "engine/prefix_cache.h"
#include "engine/prefix_store.h"
#include "model/model.h"
#include "text/token.h"

namespace penstock {

// What a pass works with; the engine owns all of it.
struct PassParts {
  const Model& model;
  Backend& backend;
  const ThreadPool& team;  // that computes, behind the backend
  Experts& experts;
  ExpertStore& store;  // behind them
  Scratch& scratch;
  MoeScratch& moe;
  SequenceMemory& memory;
  PrefixCache& prefixes;
  BetweenLayers between_layers;
  PrefixStore* prefix_store = nullptr;  // on disk, where there is one
  ExpertStore* copy = nullptr;          // of the experts in fewer bits, where there is one

  int64_t rows_max() const { return scratch.shape().chunk_tokens; }
  // Of both stores. Steps and what slots did are counted by each.
  StoreStats stats() const {
    return copy == nullptr ? store.stats() : store.stats() + copy->stats();
  }
};

// A timeline of tokens and what it has left behind.
//
// Invariant  tokens are exactly those whose state is held, unless a drafted token is on trial.
struct Sequence {
  explicit Sequence(PassParts& parts);

  SequenceState state;
  std::vector<TokenId> tokens;
  std::vector<float> logits;  // [vocab] after the last of tokens
  bool logits_known = false;
  std::optional<TokenId> on_trial;  // a drafted token, evaluated behind tokens
  std::vector<float> trial_logits;  // [vocab] after it
};

// Sees the logits of each row of a segment: `row` counts its rows.
using RowObserver = std::function<void(int64_t row, std::span<const float> logits)>;

struct SegmentWish {
  LogitsOf logits_of = LogitsOf::kLastRow;  // the last row's go to Sequence::logits
  bool last_is_draft = false;               // then every row's logits are made
  RowObserver on_logits;                    // may be empty
};

struct PassObservers {
  RouteObserver on_route;  // may be empty
  RouteOverride reroute;   // may be empty
};

class Batch {
 public:
  explicit Batch(PassParts& parts) : parts_(parts) {}

  int64_t rows_left() const { return parts_.rows_max() - std::ssize(tokens_); }
  // A sequence once at most, with at least one token and no trial pending.
  void add(Sequence& sequence, std::span<const TokenId> tokens, const SegmentWish& wish = {});

  // Evaluates what was added, and forgets it.
  Result<PassFigures> run(const std::stop_token& stop, const PassObservers& observers = {});

 private:
  struct Part {
    Sequence* sequence;
    size_t first, rows;
    SegmentWish wish;
  };

  Result<void> make_room();
  Result<void> keep_logits(size_t segment, int64_t row, Rows logits) const;
  void count_asked(const Routing& routing, std::vector<int64_t>& asked) const;
  void finish(const Part& part, bool is_done);

  PassParts& parts_;
  std::vector<TokenId> tokens_;
  std::vector<Part> added_;
};

}  // namespace penstock
