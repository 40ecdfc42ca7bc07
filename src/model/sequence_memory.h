// The memory of all sequences: pages of keys and values, and sets of recurrent states.
//
// Planned and taken once, then shared by every sequence and every mark (a place to go back to), so
// that no further sequence costs a byte outside of the budget.
//
// A page holds kKvPagePositions positions of all attention layers. Positions are only appended, so
// sequences that begin alike may share pages; whoever wants to write into a page where somebody
// else's positions are takes a copy first (SequenceState). A set holds one position's state of all
// delta-net layers. A set that is in use by anybody is never written again: each pass reads one and
// writes another, so keeping a place costs nothing, and a pass that fails has changed nothing.
//
// Invariants  (1) A page or set is free exactly when nobody holds it.
//             (2) Only a page's one live holder writes into it, beyond all marked positions.
// Threads     the computing thread
// Memory      everything is taken from the backend's memory in create(); bytes_needed() is exact and goes into the plan
// Errors      create(): kOutOfMemory
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/place.h"
#include "base/result.h"
#include "compute/backend.h"
#include "model/config.h"

namespace penstock {

// What is planned for.
struct SequenceLimits {
  int64_t context = 0;  // positions of one sequence
  int sequences = 1;    // that may be evaluated in one pass
  int marks = 0;        // places to go back to, besides
  KvForm kv_form = KvForm::kFloat32;
};

class SequenceMemory {
 public:
  static uint64_t bytes_needed(const ModelConfig& config, const SequenceLimits& limits);
  static Result<SequenceMemory> create(const ModelConfig& config, const SequenceLimits& limits,
                                       Backend& backend);

  // Through which states are cleared, read and written from now on: the one that computes with them, since
  // they may be elsewhere as well.
  void set_backend(Backend& backend) { backend_ = &backend; }

  // What one position takes: keys and values of all attention layers, and of the prediction block's.
  static uint64_t bytes_per_position(const ModelConfig& config, KvForm form);

  int64_t context() const { return limits_.context; }
  bool has_recurrent_state() const { return layers_floats_ > 0; }
  bool drafts() const { return drafts_; }

  int num_free_pages() const { return static_cast<int>(free_pages_.size()); }
  int num_free_sets() const { return static_cast<int>(free_sets_.size()); }

  // A page or set that nobody holds, now held once; there must be one. Its bytes are whatever they
  // were.
  int take_page();
  int take_set();

  // One more live holder, or one less; and the same for marks, which rely on the first `positions`
  // of a page.
  void hold_page(int page) { ++pages_[static_cast<size_t>(page)].live; }
  void drop_page(int page);
  void mark_page(int page, int64_t positions);
  void unmark_page(int page, int64_t positions);
  // Whether the holder of `page` may write at `position` of it and behind.
  bool may_write(int page, int64_t position) const;
  void hold_set(int set) { ++sets_[static_cast<size_t>(set)]; }
  void drop_set(int set);

  float* page_data(int page) const { return pages_begin_ + page * page_floats_; }
  void copy_page(int from, int to);

  // What is to be written to a disk of a page and of a set, in one order: for a page its first
  // `positions`, and of the prediction block's cache its first `drafted`.
  struct Piece {
    float* data = nullptr;
    int64_t floats = 0;  // at most kPieceFloatsMax
  };
  static constexpr int64_t kPieceFloatsMax = 256 * 1024;
  std::vector<Piece> page_pieces(int page, int64_t positions, int64_t drafted) const;
  std::vector<Piece> set_pieces(int set) const;
  Result<void> read_piece(const Piece& piece, std::span<float> to) const;
  void write_piece(std::span<const float> from, const Piece& piece);

  // A layer's part of pages and of a set. `layer`: an attention layer; a delta-net layer.
  KvCache kv(int64_t layer, std::span<float* const> pages) const;
  KvCache draft_kv(std::span<float* const> pages) const;
  DeltaNetState delta_net(int64_t layer, int set) const;
  // [1, hidden_size] that drafts start from; without a prediction block it has no columns.
  Rows hidden(int set) const;
  void clear_set(int set);

 private:
  struct Page {
    int live = 0;
    std::vector<int64_t> marked;  // positions that each mark relies on
  };

  SequenceMemory() = default;
  void release_if_unused(int page);

  Rows row(float* data, int64_t floats) const { return {data, 1, floats, floats, buffer_.place()}; }

  Backend* backend_ = nullptr;
  Buffer buffer_;
  SequenceLimits limits_;
  bool drafts_ = false;
  int64_t kv_heads_ = 0;
  int64_t row_floats_ = 0;   // of a kv head at a position
  int64_t part_floats_ = 0;  // keys, or values, of one layer in a page
  int64_t page_floats_ = 0;
  int64_t history_floats_ = 0;  // convolution history per layer
  int64_t layers_floats_ = 0;   // all delta-net layers together
  int64_t state_floats_ = 0;    // of one of them
  int64_t set_floats_ = 0;      // with the hidden state
  int64_t attention_layers_ = 0;
  int64_t hidden_size_ = 0;
  std::vector<int64_t> index_;  // [layer]: its index among the layers of its type
  float* pages_begin_ = nullptr;
  float* sets_begin_ = nullptr;
  std::vector<Page> pages_;
  std::vector<int> sets_;  // holders
  std::vector<int> free_pages_, free_sets_;
};

}  // namespace penstock
