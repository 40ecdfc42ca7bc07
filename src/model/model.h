// A model of some family: its graph, with its resident weights bound.
//
// One pass evaluates rows of one or several sequences, a segment each. The mixers see each
// sequence's own rows; everything else sees all rows at once, so that every needed expert is read
// once and applied to all rows that want it. Each row is computed independently of the others
// (compute/backend.h): a sequence gets the same bits alone and among others.
//
// Threads  the computing thread
// Memory   views into resident memory that the caller keeps alive
// Errors   kIo, kCorrupt (from the experts), kCancelled. States are begun and then committed or
//          abandoned by the caller (model/state.h), so an error has changed nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/result.h"
#include "compute/rows.h"
#include "model/config.h"
#include "model/state.h"
#include "model/step.h"

namespace penstock {

// Which rows of a segment get logits.
enum class LogitsOf { kNone, kLastRow, kEveryRow };

// One sequence's part of a pass: the next state.rows() of the pass's rows. The state has begun.
struct Segment {
  SequenceState* state = nullptr;
  LogitsOf logits_of = LogitsOf::kNone;
};

// Sees the logits [1, vocab] of each wanted row once: segments in order, and rows in order in each.
// `row` counts the segment's rows. An error ends the pass.
using LogitsObserver = std::function<Result<void>(size_t segment, int64_t row, Rows logits)>;

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;

  // Every token goes through every layer. tokens: all segments' rows, at most
  // scratch.shape().chunk_tokens of them.
  virtual Result<void> forward(Step& step, std::span<const int32_t> tokens,
                               std::span<const Segment> segments,
                               const LogitsObserver& on_logits) const = 0;

  // Logits [1, vocab] of the token after `next`, which is not fed yet, by the prediction block: from
  // the hidden state of the last position (state.length() >= 1) and `next`. A guess, for
  // speculation; only where state.drafts(). Its experts are those of the store's last layer. Times
  // go to draft_ns; no observer hears of it. The state is as before, but for the block's own cache.
  virtual Result<Rows> draft(Step& step, int32_t next, SequenceState& state) const = 0;
};

}  // namespace penstock
