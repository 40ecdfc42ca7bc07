// What is behind an ExpertStore: the streams and wishes of a pass (store_core.cc), and what is done
// at rest, between passes (store_at_rest.cc).
//
// Contract, invariants and threads are those of store/expert_store.h; nobody else includes this.
// Errors  those of store/expert_store.h
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "store/expert_cache.h"
#include "store/expert_store.h"
#include "store/prefetcher.h"
#include "store/preloader.h"
#include "store/slot_filler.h"

namespace penstock {

inline CacheShape cache_shape(const ExpertTable& table, const StoreOptions& options) {
  return {.num_layers = table.num_layers,
          .num_experts = table.num_experts,
          .num_slots = options.num_slots};
}

// What a stream asks for lives here and not in the stream, so that its lists are allocated once.
class ExpertStore::Core {
 public:
  Core(std::unique_ptr<SlotFiller> filler, const StoreOptions& options)
      : options_(options),
        filler_(std::move(filler)),
        cache_(cache_shape(filler_->table(), options), options.policy),
        prefetcher_(cache_shape(filler_->table(), options), cache_, *filler_),
        preloader_(cache_, *filler_) {
    const auto num_experts = static_cast<size_t>(filler_->table().num_experts);
    wanted_.reserve(num_experts);
    arrivals_.reserve(num_experts * filler_->table().parts.size());
    touched_.reserve(static_cast<size_t>(filler_->reader().capacity()));
    let_go_.reserve(num_experts);
  }

  ~Core() {
    PENSTOCK_CHECK(!stream_is_alive_);
    prefetcher_.drop(let_go_);
    PENSTOCK_CHECK(cache_.num_pinned() == 0);
  }

  void begin_stream(int layer, std::span<const int32_t> experts);
  Result<std::span<const ExpertArrival>> next(const std::stop_token& stop);
  void release(int32_t index);
  void end_stream();

  bool wants_prefetch() const {
    return options_.prefetch && prefetcher_.is_worth_it(wanted_.size());
  }
  void prefetch(int layer, std::span<const int32_t> experts);
  void keep_reading();
  std::span<const LayerRecall> recall() const { return prefetcher_.recall(); }

  void advance_token();
  void set_trace(RoutingTrace* trace) { trace_ = trace; }

  ExpertUsage usage() const;
  void restore_usage(const ExpertUsage& usage);
  void preload(std::vector<ExpertId> experts);
  bool preload_more(std::chrono::nanoseconds timeout);
  const PreloadReport& preloaded() const { return preloader_.report(); }
  int resize(int num_slots);

  const StoreStats& stats();
  void reset_stats();
  const Reader& reader() const { return filler_->reader(); }
  int num_slots() const { return cache_.num_slots(); }

 private:
  struct Wanted {
    int32_t expert = 0;
    int slot = -1;  // -1: waits for one
    int parts_given = 0;
    bool is_released = false;
    bool is_shared = false;  // being read for a wish or a preload when it was asked for
  };

  bool give_slots();
  void enqueue_missing(const Wanted& wanted, int part);
  void enqueue_by_expert();
  void collect(std::chrono::nanoseconds timeout);
  void settle(int slot);
  void gather_arrivals();
  void read_again();
  void start_wishes();
  void settle_let_go();
  void end_reads();
  std::optional<Error> failure() const;
  Result<void> wait_for_reads(const std::stop_token& stop);

  const StoreOptions options_;
  std::unique_ptr<SlotFiller> filler_;
  ExpertCache cache_;
  Prefetcher prefetcher_;
  Preloader preloader_;
  RoutingTrace* trace_ = nullptr;
  StoreStats stats_;
  uint64_t evictions_before_ = 0;  // the latest reset

  bool stream_is_alive_ = false;
  int layer_ = 0;
  bool disk_is_idle_ = false;  // since the wish list came
  std::vector<Wanted> wanted_;
  size_t with_slot_ = 0;  // wanted experts before this index have had their slot
  std::vector<ExpertArrival> arrivals_;
  std::vector<int> touched_;
  std::vector<int> let_go_;  // by the prefetcher
};

}  // namespace penstock
