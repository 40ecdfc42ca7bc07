// The slots of a store: who is in which, what it was taken for, and getting its bytes there.
//
// The one place where a slot changes hands. Those who want experts (streams, wishes, preloads) say
// which and why; acquire() finds the slot, and with it everything that was remembered of the expert
// before is over. ExpertCache decides whose turn it is to go, SlotFiller reads; nobody else may ask
// either of them to change anything.
//
//   free --acquire--> filling --last read ends, all is good--> ready --acquire for another--> filling
//     ^                  `--last read ends, nobody waits for what is missing--> free
//
// Invariants
//   (1) A slot leaves `filling` when no read into it is open: ready when all of it is good, free when
//       it is not and nobody has it pinned.
//   (2) The purpose of a slot is that of its latest acquire() until a stream asks for the expert.
//
// Threads  One. The reader writes slot bytes between submit() and collect().
// Memory   Allocated in create(): what SlotFiller and ExpertCache need and a byte per slot.
// Errors   create(): kOutOfMemory
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "store/expert_cache.h"
#include "store/expert_usage.h"
#include "store/slot_filler.h"

namespace penstock {

// What a slot was taken for. A demand pins it and may evict; a wish does as well, with a pin of its
// own; a preload takes free slots only and pins nothing.
enum class Purpose : uint8_t { kDemand, kWish, kPreload };

class Slots {
 public:
  // The table has been checked against its files.
  static Result<std::unique_ptr<Slots>> create(ExpertTable table, std::unique_ptr<Reader> reader,
                                               int num_slots, EvictionPolicy policy,
                                               int half_life_runs, bool verify, ThreadPool* team);

  const ExpertCache& cache() const { return cache_; }
  const SlotFiller& filler() const { return *filler_; }
  const ExpertTable& table() const { return filler_->table(); }

  // The clock and the uses behind eviction.
  void begin_run(int layer) { cache_.begin_run(layer); }
  void record_use(ExpertId id) { cache_.record_use(id.layer, id.expert); }
  void restore_usage(std::span<const float> counts) { cache_.restore_usage(counts); }
  // Where it is in a slot and whole (ExpertCache::set_spare).
  void set_spare(ExpertId id, bool is_spare);

  // A slot for an expert that is in none, all parts missing. Nothing when none can be had.
  std::optional<int> acquire(ExpertId id, Purpose why);

  // Where a stream finds the expert that it asks for: pinned for it, failed parts forgiven.
  struct Found {
    int slot = 0;
    bool is_hit = false;     // whole, and not only because of a wish
    bool is_shared = false;  // being read for a wish or a preload
  };
  std::optional<Found> demand(ExpertId id);

  void pin(int slot) { cache_.pin(slot); }
  void unpin(int slot);
  void forgive(int slot) { filler_->forgive(slot); }

  // Reads of missing parts; they wait in a queue until the reader has room.
  void enqueue(int slot, int part) { filler_->enqueue(slot, part); }
  void enqueue_all(int slot);
  void submit() { filler_->submit(); }
  void clear_queue() { filler_->clear_queue(); }

  // Takes in what has ended, waiting for the first up to `timeout`. The slots it touched; valid
  // until the next call.
  std::span<const int> collect(std::chrono::nanoseconds timeout);

  // Uses so many slots from now on (ExpertCache::resize); the memory of the others goes back to the
  // system. Those there are now: more than asked for where a slot is held, fewer where there is no
  // memory for more.
  int resize(int num_slots);
  // Their memory beforehand, and then using so many without asking for it again.
  Result<void> make_present(int begin, int end) { return filler_->take_again(begin, end); }
  void add_present(int num_slots);

  std::span<std::byte> memory() { return filler_->memory(); }
  uint64_t times_given_back() const { return filler_->times_given_back(); }

  void reset_stats() { filler_->reset_stats(); }

  static CacheShape shape_of(const ExpertTable& table, int num_slots);
  static uint64_t bytes_needed(const ExpertTable& table, int num_slots);

 private:
  Slots(std::unique_ptr<SlotFiller> filler, const CacheShape& shape, EvictionPolicy policy,
        int half_life_runs);

  void settle(int slot);  // invariant (1)

  std::unique_ptr<SlotFiller> filler_;
  ExpertCache cache_;
  std::vector<Purpose> purposes_;  // [slot]
  std::vector<int> touched_;
};

}  // namespace penstock
