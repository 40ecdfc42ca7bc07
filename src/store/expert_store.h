// The experts of a model, nearest copy first: slots in memory, then flash.
//
// A layer asks for the experts its router chose and receives each part as soon as it is in memory
// and its checksum agrees. An expert that was handed out stays where it is until it is released or
// the stream ends.
//
//   ExpertStream experts = store.stream(layer, ids);        // reads of the missing ones start
//   for (;;) {
//     const auto arrived = PENSTOCK_TRY(experts.next(stop));
//     if (arrived.empty()) break;
//     for (const ExpertArrival& a : arrived) {
//       compute(ids[a.index], a.part, a.data);             // the parts of one expert in order
//       if (a.part is the last one) experts.release(a.index);
//     }
//   }
//
// More experts may be asked for than there are slots: they come in waves, as the caller releases.
//
// What the next stream will probably ask for may be wished for (prefetch). It is read when every
// read of the stream at work has been submitted and all but a few have ended, so a wish never
// stands before a demanded read; a wrong one costs idle disk time and the slot of the expert that
// would have gone next.
//
// Before anybody asks, the most used experts of an earlier run may be read into free slots
// (preload), with the same checks. And the number of slots may change between streams (resize),
// when memory is needed elsewhere.
//
// A nearer tier (a device's memory) may have some of the experts and compute them itself. Nobody asks
// for these here, but their uses count as before; and what lies there as well as here is `spare`.
//
// Invariants
//   (1) A slot is free, filling or ready (expert_cache.h). Only the end of its last read leaves
//       `filling`; a slot that is filling is never reused, whatever became of the stream.
//   (2) A slot that is pinned or filling is never a victim.
//   (3) No byte is handed out whose checksum was not compared, where the table has one.
//   (4) What is cached changes when bytes arrive, never which bytes.
//   (5) At rest (no stream alive) only wished experts are pinned, until the next stream begins, the
//       next wish list comes or the token ends; the destructor checks it.
//   (6) A failure is not remembered: the next stream that asks tries again. So does a stream that
//       asked for an expert while it was being read for a wish or a preload.
//
// Threads  All calls come from one thread, the one that computes. Readers only write slot bytes.
// Memory   Allocates all slots and bookkeeping in create(); nothing afterwards, once the lists of a
//          stream have seen their longest request, but for the lists of preload() and resize().
// Errors   create(): kInvalidArgument, kCorrupt (the table does not fit the file), kUnsupported,
//          kOutOfMemory. next(): kIo, kCorrupt, kCancelled; each names layer, expert, part, file
//          and offset. After any of them the store is usable again.
// See also bench/cache_replay.cc (policies), docs/performance/eviction.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "io/reader.h"
#include "store/drives.h"
#include "store/eviction.h"
#include "store/expert_table.h"
#include "store/expert_usage.h"
#include "store/prefetcher.h"
#include "store/preloader.h"
#include "store/routing_trace.h"
#include "store/slots.h"

namespace penstock {

struct StoreOptions {
  int num_slots = 0;
  EvictionPolicy policy = EvictionPolicy::kFrequencyRecency;
  bool verify = true;          // compare checksums, where the table has them
  ThreadPool* team = nullptr;  // for checksums; outlives the store, is idle at calls; may be absent
  bool prefetch = true;        // false: wishes are ignored
  PrefetchOptions ahead = {};
  int half_life_runs = kHalfLifeRuns;  // of the count of uses behind eviction
  std::chrono::nanoseconds stall_limit = std::chrono::seconds(60);
};

struct StoreStats {
  uint64_t requests = 0;         // experts asked for: hits + misses
  uint64_t hits = 0;             // in memory when asked for, and not only because of a wish
  uint64_t misses = 0;           // cost a read, after they were asked for or before
  uint64_t nearer = 0;           // used in a nearer tier, not asked for
  uint64_t prefetches = 0;       // experts whose reads were submitted for a wish
  uint64_t prefetches_used = 0;  // of these, asked for by the stream that they were read for
  uint64_t prefetch_bytes = 0;   // of these reads: part of bytes_read once they have ended
  uint64_t evictions = 0;
  uint64_t reads = 0;  // submitted, repeated ones included
  uint64_t bytes_read = 0;
  uint64_t io_retries = 0;
  uint64_t checksum_failures = 0;
  uint64_t waves = 0;             // times experts had to wait for slots and then got some
  uint64_t steps = 0;             // calls of advance_token
  uint64_t shrinks = 0;           // times that slots were given back
  uint64_t slots_given_back = 0;  // in all
  int64_t wait_ns = 0;            // next() with nothing to hand out
  int64_t verify_ns = 0;
  uint64_t bytes_verified = 0;
  uint64_t checksums_learned = 0;  // of parts that had none yet
};

// One that holds the experts' files, and how it did.
struct DriveReport {
  std::string path;  // of a file there
  DriveStats stats;
  double bytes_per_second = 0;  // as measured; 0: not known
  bool is_resting = false;      // it failed three times in a row: others are asked for now
};

struct ExpertArrival {
  int32_t index = 0;  // into the list given to stream()
  int part = 0;
  std::span<const std::byte> data;  // valid until release(index) or the end of the stream
};

class ExpertStore;

// One layer's wanted experts, arriving. One is alive at a time.
class ExpertStream {
 public:
  ExpertStream(ExpertStream&& other) noexcept;
  ExpertStream& operator=(ExpertStream&&) = delete;
  ~ExpertStream();  // drops all pins; reads in flight end in their slots later

  // What has arrived and was not handed out yet; waits for at least one. Parts of one expert come
  // in order. Empty when everything has been handed out. The list is valid until the next call.
  // After an error the stream is over: destroy it.
  Result<std::span<const ExpertArrival>> next(std::stop_token stop);

  // The caller is done with this expert, all of whose parts were handed out. Waiting in next() for
  // experts that have no slot while every slot is pinned by unreleased ones is the caller's
  // mistake.
  void release(int32_t index);

 private:
  friend class ExpertStore;
  explicit ExpertStream(ExpertStore* store) : store_(store) {}
  ExpertStore* store_;
};

class ExpertStore {
 public:
  static Result<std::unique_ptr<ExpertStore>> create(ExpertTable table,
                                                     std::unique_ptr<Reader> reader,
                                                     const StoreOptions& options);
  ~ExpertStore();  // waits for reads in flight
  ExpertStore(const ExpertStore&) = delete;
  ExpertStore& operator=(const ExpertStore&) = delete;

  // Distinct experts of one layer. The reads of the missing ones are submitted at once as far as
  // the reader's capacity goes: the first parts of all (LayerPlaces::first_parts) before the others
  // when all experts have slots, else expert by expert.
  // nearer: others of the layer that the same rows use, in a nearer tier.
  ExpertStream stream(int layer, std::span<const int32_t> experts,
                      std::span<const int32_t> nearer = {});
  // Those that the tier had for the latest stream and has lost: uses are not counted again.
  ExpertStream stream_lost(std::span<const int32_t> experts);

  // Whether its bytes are here.
  bool has(ExpertId id) const;
  // What lies in a nearer tier too goes first when a slot is needed, until it is said otherwise.
  void set_spare(ExpertId id, bool is_spare) { slots_->set_spare(id, is_spare); }

  // The experts that the next stream, of another layer than one that is alive, will probably ask
  // for, most wanted first; in place of an earlier list. Ask wants_prefetch() before guessing: the
  // answer is no when all experts are in memory, too few slots are left, or guesses were too often
  // wrong.
  bool wants_prefetch() const;
  void prefetch(int layer, std::span<const int32_t> experts);
  std::span<const LayerRecall> recall() const { return prefetcher_.recall(); }  // [layer]

  // To be called between the ops of a pass: takes in what has been read and starts the next reads,
  // which nobody else does while the caller computes. Cheap when there is nothing to do.
  void keep_reading();

  // One decoded token or one prefill chunk is over.
  void advance_token();

  // How often each expert was used; and to go on from there. Both at rest.
  ExpertUsage usage() const;
  void restore_usage(const ExpertUsage& usage);

  // Experts to read into free slots, in this order, as far as they are not here; in place of an
  // earlier list. They are read by preload_more(): takes in what has come, waiting for the first up
  // to `timeout`, and asks for more. False when there is nothing left to do. Both at rest; to stop
  // is not to call it again. What cannot be read is left out and reported.
  void preload(std::vector<ExpertId> experts);
  bool preload_more(std::chrono::nanoseconds timeout);
  const PreloadReport& preloaded() const { return preloader_.report(); }

  // Uses so many slots from now on, from 1 to those of the options; at rest. What the others hold
  // goes by the rules of eviction, and their memory back to the system. The slots there are now:
  // more than asked for where a read does not end, fewer where the system has no memory for more.
  int resize(int num_slots);
  // For slots that come later: clears the memory of those from begin to end, which are not used now. From any
  // thread, also beside a stream, but not beside a resize to more than `begin` or to fewer than there were.
  // kOutOfMemory when there is none.
  Result<void> make_present(int begin, int end) { return slots_->make_present(begin, end); }
  // Uses those as well, up to `num_slots`; at rest.
  void add_present(int num_slots);

  // The slots side by side, for those who look at what was handed out by other ways than this process: the memory
  // of the first num_slots() is there. Whenever some of it was given back, what comes in its place are other pages.
  struct SlotMemory {
    std::span<std::byte> bytes;  // of all slots that there may be
    int num_slots_max = 0;
    uint64_t times_given_back = 0;
  };
  SlotMemory slot_memory();

  StoreStats stats() const;
  std::vector<DriveReport> drives() const;  // the first holds the model's own files
  void reset_stats();
  // In seconds, since the start (slot_filler.h).
  const Histogram& read_times() const { return slots_->filler().read_times(); }
  int num_slots() const { return slots_->cache().num_slots(); }
  const ExpertTable& table() const { return slots_->table(); }
  std::string reader_description() const { return slots_->filler().reader().description(); }

  // Memory of a store with these options: slots and everything else, for the plan.
  static uint64_t bytes_needed(const ExpertTable& table, const StoreOptions& options);

  // Records every stream() from now on; nullptr ends it. The trace outlives the recording.
  void set_trace(RoutingTrace* trace) { trace_ = trace; }

 private:
  friend class ExpertStream;
  struct Wanted {
    int32_t expert = 0;
    int slot = -1;  // -1: waits for one
    int parts_given = 0;
    bool is_released = false;
    bool is_shared = false;  // being read for a wish or a preload when it was asked for
  };

  ExpertStore(std::unique_ptr<Slots> slots, const StoreOptions& options);

  // Of the stream that is alive.
  Result<std::span<const ExpertArrival>> next(const std::stop_token& stop);
  void release(int32_t index);
  void end_stream();
  void count_uses(std::span<const int32_t> experts, std::span<const int32_t> nearer);
  void find_wanted(std::span<const int32_t> experts);
  void start_reads();
  bool give_slots();
  void enqueue_missing(const Wanted& wanted, int first_part, int end_part);
  void enqueue_by_expert();
  void gather_arrivals();
  void read_again();
  std::optional<Error> failure() const;
  Result<void> wait_for_reads(const std::stop_token& stop);
  int num_parts() const { return table().layer(layer_).num_parts(); }

  size_t collect(std::chrono::nanoseconds timeout);  // the number of reads that had ended
  void start_wishes();
  void end_reads();

  const StoreOptions options_;
  std::unique_ptr<Slots> slots_;
  Prefetcher prefetcher_;
  Preloader preloader_;
  RoutingTrace* trace_ = nullptr;
  StoreStats stats_;               // its own; those of slots and prefetcher are added by stats()
  uint64_t evictions_before_ = 0;  // the latest reset

  bool stream_is_alive_ = false;
  int layer_ = 0;
  bool disk_is_idle_ = false;  // since the wish list came
  std::vector<Wanted> wanted_;
  size_t with_slot_ = 0;  // wanted experts before this index have had their slot
  std::vector<ExpertArrival> arrivals_;
};

}  // namespace penstock
