// What the next layer will probably ask for, read while the disk has nothing else to do.
//
// A wish list holds for the next stream, whichever that is. Wished experts that are cached are
// pinned; the others get a slot only when their reads can be submitted at once, so a wish never
// queues and never stands before a demanded read. The store says when the disk is idle.
//
//   (nothing) --wish--> wishes --start--> slots pinned, reads in flight --finish, drop--> (nothing)
//
// Invariants
//   (1) A wish with a slot has one pin on it, from wish() or start() until drop().
//   (2) Reads for experts_ahead experts, or for a part of a longer list, are in flight at most when
//       one is added, and never more than half of the reader's capacity.
//
// Threads  One.
// Memory   Allocated in the constructor: 32 bytes per layer, 16 per expert of one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "store/prefetch_switch.h"
#include "store/slots.h"

namespace penstock {

// How well the experts of one layer were foreseen, over all its runs that had a wish list.
struct LayerRecall {
  uint64_t chosen = 0;
  uint64_t foreseen = 0;         // of these, on the wish list
  uint64_t missed = 0;           // chosen, and not in memory before the list was made
  uint64_t missed_foreseen = 0;  // of these, on the wish list

  LayerRecall& operator+=(const LayerRecall& other);
};

struct PrefetchStats {
  uint64_t experts = 0;  // whose reads were submitted
  uint64_t used = 0;     // asked for by the stream that they were read for
  uint64_t bytes = 0;    // of these reads
};

// How far reading ahead goes. What is computed does not depend on it.
struct PrefetchOptions {
  // Reads for so many experts keep a disk busy until the next op has ended. Those of a decoded token
  // come in the order of their likelihood, so that what the idle time does not suffice for is not
  // read in vain; the long lists of a prompt are nearly certain, and ops are longer.
  int experts_ahead = 3;
  int list_ahead_part = 4;  // a quarter of a long list
  // So few reads in flight leave the disk idle soon: those of one expert. Two and a half measured
  // the same for a decoded token; reading ahead at once, beside its demand, waits a quarter longer.
  int list_left_part = 16;                      // of a long list
  float share_min = PrefetchSwitch::kShareMin;  // of guesses that are right, to go on
};

class Prefetcher {
 public:
  explicit Prefetcher(Slots& slots, const PrefetchOptions& options = {});  // slots outlive it

  // Whether a list is worth making while a stream holds `wanted` experts.
  bool is_worth_it(size_t wanted) const { return switch_.is_on() && wishes_max(wanted) > 0; }

  // Replaces the list. Most wanted first.
  void wish(int layer, std::span<const int32_t> experts, size_t wanted);
  // Submits reads for wishes as far as the reader has room and a slot can be had.
  void start();

  // The stream of `layer` asks for an expert, which is a hit or not.
  void count_use(int layer, int expert, bool is_hit);
  // The stream of `layer` has asked for all that it wants: the list is done with.
  void finish(int layer);
  // The list is not wanted any more.
  void drop();

  void end_step() { switch_.end_step(); }

  // Reading ahead may begin when no more reads than these are in flight for the stream at work.
  int reads_left_max() const;
  bool has_reads_to_start() const { return next_ < wishes_.size(); }
  bool has_reads() const { return read_ > 0; }  // submitted for this list
  const PrefetchStats& stats() const { return stats_; }
  std::span<const LayerRecall> recall() const { return recall_; }
  void reset_stats();

  static uint64_t bytes_needed(const ExpertTable& table);

 private:
  enum class Foresight : uint8_t { kNone, kWished, kRead };
  struct Wish {
    int32_t expert = 0;
    int slot = -1;  // -1: not started
  };

  Foresight& foresight_of(int expert) { return foresight_[static_cast<size_t>(expert)]; }
  // Half of what a layer leaves over, so that neither its waves nor the next one's run short.
  size_t wishes_max(size_t wanted) const;
  // Nothing is left to be read, now or later.
  bool all_are_here() const;
  int num_reads() const { return slots_.filler().num_reads(layer_); }

  Slots& slots_;
  const PrefetchOptions options_;
  PrefetchSwitch switch_;
  int layer_ = -1;  // of the wishes; -1: there are none
  std::vector<Wish> wishes_;
  size_t next_ = 0;                   // wishes before this index have been started or were cached
  std::vector<Foresight> foresight_;  // [expert], in layer_
  int read_ = 0, used_ = 0;           // of this list
  std::vector<LayerRecall> recall_;
  PrefetchStats stats_;
};

}  // namespace penstock
