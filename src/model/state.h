// What a sequence has left behind: KV caches and delta-net states, one object with checkpoints.
//
// Attention layers keep a key and a value per position, which a shorter prefix simply ignores.
// Delta-net layers keep a fixed-size state that cannot be cut back, so going back to an earlier
// position needs a checkpoint: a copy of all delta-net states at that position. The KV part of a
// checkpoint costs nothing, because positions are only ever appended.
//
// A model with a prediction block (spec section 6) also keeps that block's KV cache, the final
// hidden state of the last position, which is what a draft starts from, and a second set of
// delta-net states: a drafted token is evaluated on trial, and kept or dropped when the token that
// it stood for is known.
//
// Invariants  (1) 0 <= length <= context.
//             (2) Every checkpoint's length is at most length, or the checkpoint is empty.
//             (3) KV entries below length belong to the tokens that were fed.
//             (4) Entries of the prediction block's KV cache below length - 1 are whole: entry p
//                 belongs to the hidden state of position p and the token of position p + 1.
// Threads     the computing thread
// Memory      everything is allocated in create(); bytes_needed() is exact and goes into the plan
// Errors      create(): kOutOfMemory
// Source      spec sections 4.3, 4.5, 6.2, 8.2
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "compute/backend.h"
#include "model/config.h"

namespace penstock {

class SequenceState {
 public:
  static uint64_t bytes_needed(const ModelConfig& config, int64_t context, int num_checkpoints);
  static Result<SequenceState> create(const ModelConfig& config, int64_t context,
                                      int num_checkpoints);

  int64_t length() const { return length_; }
  int64_t context() const { return context_; }

  KvCache kv(int64_t layer) const;  // a full-attention layer
  // A delta-net layer; with `on_trial` the last row of the pass goes to the second set.
  DeltaNetState delta_net(int64_t layer, bool on_trial) const;

  // The last of `tokens` may be on trial: it counts until it is dropped, and nothing else happens
  // to the state before it is kept or dropped.
  void advance(int64_t tokens, bool on_trial);
  bool has_trial() const { return has_trial_; }
  void keep_trial();
  void drop_trial();
  void reset();  // an empty sequence; checkpoints are forgotten

  bool drafts() const { return draft_kv_ != nullptr; }
  KvCache draft_kv() const { return {draft_kv_, draft_kv_ + kv_floats_, context_}; }
  // [hidden_size] after the final norm, of the last position; of the one on trial.
  std::span<float> hidden() const { return {delta_ + layers_floats_, hidden_floats_}; }
  std::span<float> trial_hidden() const { return {trial_ + layers_floats_, hidden_floats_}; }

  // Saves the present position, over the oldest checkpoint when all are taken.
  void save_checkpoint();
  // Goes back to the longest checkpoint of at most `length` positions, or to an empty sequence.
  // Later checkpoints are forgotten.
  void rewind(int64_t length);
  int64_t checkpoint_at_most(int64_t length) const;  // its position, 0 when there is none

 private:
  struct Checkpoint {
    int64_t length = 0;  // 0: empty
    uint64_t age = 0;
    float* copy = nullptr;
  };

  SequenceState() = default;

  AlignedMemory memory_;
  int64_t length_ = 0;
  int64_t context_ = 0;
  int64_t kv_floats_ = 0;        // of keys, or of values, per layer
  int64_t history_floats_ = 0;   // convolution history per layer
  int64_t memory_floats_ = 0;    // delta-net matrix per layer
  int64_t layers_floats_ = 0;    // all delta-net layers together
  size_t hidden_floats_ = 0;     // of the hidden state that drafts start from
  int64_t delta_floats_ = 0;     // both: what a checkpoint copies
  bool has_trial_ = false;
  std::vector<int64_t> index_;   // [layer]: its index among the layers of its type
  float* kv_ = nullptr;          // [attention layers][keys, values]
  float* draft_kv_ = nullptr;    // [keys, values], or nullptr
  float* delta_ = nullptr;       // [delta-net layers][history, matrix], then hidden
  float* trial_ = nullptr;       // likewise, with the row on trial; or nullptr
  std::vector<Checkpoint> checkpoints_;
  uint64_t next_age_ = 1;
};

}  // namespace penstock
