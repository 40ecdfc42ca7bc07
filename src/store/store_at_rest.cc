// ExpertStore between passes, when no stream is alive: what was used, reading before anybody asks,
// another number of slots, figures.

#include <algorithm>

#include "base/check.h"
#include "io/read_progress.h"
#include "store/expert_store.h"

namespace penstock {
namespace {

// How long resize() waits for reads that would have to stay where they are.
constexpr std::chrono::nanoseconds kResizeWaitMax = std::chrono::milliseconds(200);

}  // namespace

ExpertUsage ExpertStore::usage() const {
  return {table().num_layers(), table().num_experts, slots_->cache().usage()};
}

void ExpertStore::restore_usage(const ExpertUsage& usage) {
  PENSTOCK_CHECK(usage.num_layers == table().num_layers() &&
                 usage.num_experts == table().num_experts);
  slots_->restore_usage(usage.counts);
}

void ExpertStore::preload(std::vector<ExpertId> experts) {
  PENSTOCK_CHECK(!stream_is_alive_);
  preloader_.set_list(std::move(experts));
}

bool ExpertStore::preload_more(std::chrono::nanoseconds timeout) {
  PENSTOCK_CHECK(!stream_is_alive_);
  collect(timeout);
  preloader_.start();
  return !preloader_.is_done();
}

int ExpertStore::resize(int num_slots) {
  PENSTOCK_CHECK(!stream_is_alive_);
  num_slots = std::clamp(num_slots, 1, slots_->cache().num_slots_max());
  const int before = slots_->cache().num_slots();
  if (num_slots < before) end_reads();
  const int now = slots_->resize(num_slots);
  if (now < before) {
    ++stats_.shrinks;
    stats_.slots_given_back += static_cast<uint64_t>(before - now);
  }
  return now;
}

void ExpertStore::add_present(int num_slots) {
  PENSTOCK_CHECK(!stream_is_alive_ && num_slots >= slots_->cache().num_slots());
  slots_->add_present(num_slots);
}

ExpertStore::SlotMemory ExpertStore::slot_memory() {
  return {.bytes = slots_->memory(),
          .num_slots_max = slots_->cache().num_slots_max(),
          .times_given_back = slots_->times_given_back()};
}

// So that no slot is held: wishes are dropped, and what is being read is waited for.
void ExpertStore::end_reads() {
  prefetcher_.drop();
  const int64_t end_ns = steady_now_ns() + kResizeWaitMax.count();
  while (slots_->filler().reader().in_flight() > 0 && steady_now_ns() < end_ns) {
    collect(std::chrono::nanoseconds(end_ns - steady_now_ns()));
  }
}

StoreStats ExpertStore::stats() const {
  const FillStats& fill = slots_->filler().stats();
  const PrefetchStats& prefetch = prefetcher_.stats();
  StoreStats stats = stats_;
  stats.misses = stats.requests - stats.hits;
  stats.prefetches = prefetch.experts;
  stats.prefetches_used = prefetch.used;
  stats.prefetch_bytes = prefetch.bytes;
  stats.evictions = slots_->cache().evictions() - evictions_before_;
  stats.reads = fill.reads;
  stats.bytes_read = fill.bytes_read;
  stats.io_retries = fill.io_retries;
  stats.checksum_failures = fill.checksum_failures;
  stats.bytes_verified = fill.bytes_verified;
  stats.checksums_learned = fill.checksums_learned;
  stats.verify_ns = fill.verify_ns;
  return stats;
}

std::vector<DriveReport> ExpertStore::drives() const {
  const Drives& drives = slots_->filler().drives();
  const auto last_part = [](const LayerPlaces& layer) { return layer.parts.back().of(0).file; };
  std::vector<DriveReport> reports;
  for (int i = 0; i < drives.count(); ++i) {
    reports.push_back({.path = table().file(i, last_part(table().layer(0)))->path(),
                       .stats = drives.stats(i),
                       .bytes_per_second = drives.bytes_per_second(i),
                       .is_resting = drives.is_resting(i, steady_now_ns())});
  }
  return reports;
}

void ExpertStore::reset_stats() {
  stats_ = {};
  slots_->reset_stats();
  prefetcher_.reset_stats();
  evictions_before_ = slots_->cache().evictions();
}

}  // namespace penstock
