// Between passes, when no stream is alive: what was used, reading before anybody asks, another
// number of slots, figures.

#include <algorithm>

#include "io/read_progress.h"
#include "store/store_core.h"

namespace penstock {
namespace {

// How long resize() waits for reads that would have to stay where they are.
constexpr std::chrono::nanoseconds kResizeWaitMax = std::chrono::milliseconds(200);

}  // namespace

ExpertUsage ExpertStore::Core::usage() const {
  return {filler_->table().num_layers, filler_->table().num_experts, cache_.usage()};
}

void ExpertStore::Core::restore_usage(const ExpertUsage& usage) {
  PENSTOCK_CHECK(usage.num_layers == filler_->table().num_layers &&
                 usage.num_experts == filler_->table().num_experts);
  cache_.restore_usage(usage.counts);
}

void ExpertStore::Core::preload(std::vector<ExpertId> experts) {
  PENSTOCK_CHECK(!stream_is_alive_);
  preloader_.set_list(std::move(experts));
}

bool ExpertStore::Core::preload_more(std::chrono::nanoseconds timeout) {
  PENSTOCK_CHECK(!stream_is_alive_);
  collect(timeout);
  touched_.clear();
  preloader_.start(touched_);
  for (const int slot : touched_) prefetcher_.forget(slot);
  return !preloader_.is_done();
}

int ExpertStore::Core::resize(int num_slots) {
  PENSTOCK_CHECK(!stream_is_alive_);
  num_slots = std::clamp(num_slots, 1, cache_.num_slots_max());
  const int before = cache_.num_slots();
  if (num_slots > before && !filler_->take_again(before, num_slots)) return before;
  if (num_slots < before) end_reads();
  std::vector<SlotMove> moves;
  cache_.resize(num_slots, moves);
  for (const SlotMove& slots : moves) {
    filler_->move(slots.from, slots.to);
    prefetcher_.move(slots);
  }
  if (cache_.num_slots() < before) {
    filler_->give_back_after(cache_.num_slots());
    ++stats_.shrinks;
    stats_.slots_given_back += static_cast<uint64_t>(before - cache_.num_slots());
  }
  return cache_.num_slots();
}

// So that no slot is held: wishes are dropped, and what is being read is waited for.
void ExpertStore::Core::end_reads() {
  prefetcher_.drop(let_go_);
  settle_let_go();
  const int64_t end_ns = steady_now_ns() + kResizeWaitMax.count();
  while (filler_->reader().in_flight() > 0 && steady_now_ns() < end_ns) {
    collect(std::chrono::nanoseconds(end_ns - steady_now_ns()));
  }
}

const StoreStats& ExpertStore::Core::stats() {
  const FillStats& fill = filler_->stats();
  stats_.misses = stats_.requests - stats_.hits;
  stats_.prefetches = prefetcher_.stats().experts;
  stats_.prefetches_used = prefetcher_.stats().used;
  stats_.prefetch_bytes = stats_.prefetches * filler_->expert_read_bytes();
  stats_.evictions = cache_.evictions() - evictions_before_;
  stats_.reads = fill.reads;
  stats_.bytes_read = fill.bytes_read;
  stats_.io_retries = fill.io_retries;
  stats_.checksum_failures = fill.checksum_failures;
  stats_.bytes_verified = fill.bytes_verified;
  stats_.verify_ns = fill.verify_ns;
  return stats_;
}

void ExpertStore::Core::reset_stats() {
  stats_ = {};
  filler_->stats() = {};
  prefetcher_.reset_stats();
  evictions_before_ = cache_.evictions();
}

}  // namespace penstock
