// What one sequence has left behind, and places to go back to.
//
// A sequence holds pages of keys and values, which a shorter prefix simply ignores, and one set of
// delta-net states, which cannot be cut back. A StateMark remembers a position for the price of a
// few numbers: it holds the same pages and the same set, which nobody writes again. Going back to
// it, or beginning another sequence from it, copies at most one page.
//
// A pass is a transaction:
//
//   state.begin(rows, on_trial);                 // takes what the rows need
//   model.forward(...)                           // writes pages beyond length(), and another set
//   state.commit();   or   state.abandon();      // length() grows; or all is as it was before
//
// With a prediction block (docs/model.md) the last row of a pass may be on trial: a drafted token,
// kept or dropped when the token that it stood for is known. The block's own keys and values, and
// the final hidden state of the last position, which a draft starts from, are part of pages and set.
//
// Invariants  (1) 0 <= length <= context; pages cover all positions below length.
//             (2) Entries below length belong to the tokens that were fed.
//             (3) Between passes, no set is held but the one of length (and the trial's).
//             (4) Entries of the prediction block's cache below length - 1 are whole: entry p
//                 belongs to the hidden state of position p and the token of position p + 1.
// Threads     the computing thread
// Memory      all of it is the SequenceMemory's, which outlives states and marks. There must be room
//             for a pass: whoever plans passes asks needs() first.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "compute/backend.h"
#include "model/sequence_memory.h"

namespace penstock {

// A position of some sequence, kept. Movable; gives back what it holds when it is destroyed.
class StateMark {
 public:
  StateMark() = default;
  ~StateMark() { clear(); }
  StateMark(StateMark&& other) noexcept { *this = std::move(other); }
  StateMark& operator=(StateMark&& other) noexcept;

  int64_t length() const { return length_; }
  void clear();

 private:
  friend class SequenceState;
  int64_t positions_in(size_t page) const;

  SequenceMemory* memory_ = nullptr;
  int64_t length_ = 0;
  std::vector<int> pages_;
  int set_ = -1;
};

class SequenceState {
 public:
  explicit SequenceState(SequenceMemory& memory) : memory_(&memory) {}
  ~SequenceState() { reset(); }
  SequenceState(SequenceState&& other) noexcept : memory_(other.memory_) {
    *this = std::move(other);
  }
  SequenceState& operator=(SequenceState&& other) noexcept;  // other becomes an empty sequence

  int64_t length() const { return length_; }
  int64_t context() const { return memory_->context(); }
  bool drafts() const { return memory_->drafts(); }

  struct Needs {
    int pages = 0, sets = 0;
  };
  // What begin() would take from the memory.
  Needs needs(int64_t rows, bool on_trial) const;
  void begin(int64_t rows, bool on_trial);
  void commit();
  void abandon();

  // During a pass, and for drafts between passes.
  KvCache kv(int64_t layer) const { return memory_->kv(layer, page_data_); }
  KvCache draft_kv() const { return memory_->draft_kv(page_data_); }
  // During a pass: of one layer, what to read and what to write.
  DeltaNetState before(int64_t layer) const { return memory_->delta_net(layer, set_); }
  DeltaNetState after(int64_t layer) const { return memory_->delta_net(layer, next_); }
  DeltaNetState ahead(int64_t layer) const;  // nullptrs: nothing is on trial
  bool is_on_trial() const { return is_on_trial_; }
  int64_t rows() const { return rows_; }  // of the pass at work
  // The hidden state of the last position before the pass; after it; after the row on trial.
  Rows hidden() const { return memory_->hidden(set_); }
  Rows next_hidden() const { return memory_->hidden(next_); }
  Rows trial_hidden() const { return memory_->hidden(trial_); }

  // Between passes: the drafted row that the last one evaluated. Counted in length until dropped.
  bool has_trial() const { return has_trial_; }
  void keep_trial();
  void drop_trial();

  void reset();  // an empty sequence
  // Forgets positions from `length` on; only for models without recurrent states.
  void truncate(int64_t length);
  StateMark mark() const;  // length() >= 1, no trial
  void restore(const StateMark& mark);

  // For copies on a disk: what is held, and an empty sequence made one of `length` positions whose
  // bytes the caller then writes. There must be pages_for(length) free pages and a set.
  std::span<const int> pages() const { return pages_; }
  int set() const { return set_; }
  SequenceMemory& memory() const { return *memory_; }
  static int64_t pages_for(int64_t positions) {
    return (positions + kKvPagePositions - 1) / kKvPagePositions;
  }
  void take(int64_t length);

 private:
  void drop_sets();

  SequenceMemory* memory_;
  int64_t length_ = 0;
  std::vector<int> pages_;
  std::vector<float*> page_data_;
  int set_ = -1;    // of length; -1: an empty sequence that was never begun
  int next_ = -1;   // during a pass
  int trial_ = -1;  // during a pass, and while a row is on trial
  int64_t rows_ = 0;
  bool is_in_pass_ = false;
  bool is_on_trial_ = false;
  bool has_trial_ = false;
};

}  // namespace penstock
