#include "store/store_core.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/read_progress.h"

namespace penstock {
namespace {

// How long next() waits before it looks at its stop token again.
constexpr std::chrono::nanoseconds kWaitStep = std::chrono::milliseconds(50);

}  // namespace

void ExpertStore::Core::begin_stream(int layer, std::span<const int32_t> experts) {
  PENSTOCK_CHECK(!stream_is_alive_);
  PENSTOCK_CHECK(layer >= 0 && layer < filler_->table().num_layers);
  stream_is_alive_ = true;
  layer_ = layer;
  if (trace_ != nullptr) trace_->add(layer, experts);
  // What earlier streams left behind. Reads for wishes are looked at when the missing experts have
  // been submitted, because checksums take time; before, only where their slots are needed.
  if (!prefetcher_.has_reads()) collect(std::chrono::nanoseconds(0));

  // What is here is pinned first, so that no missing expert takes its slot.
  cache_.begin_run(layer);
  wanted_.clear();
  for (const int32_t expert : experts) {
    PENSTOCK_CHECK(expert >= 0 && expert < filler_->table().num_experts);
    Wanted wanted{.expert = expert};
    cache_.record_use(layer, expert);
    const auto slot = cache_.find(layer, expert);
    if (slot) {
      wanted.slot = *slot;
      wanted.is_shared = filler_->is_reading(*slot) &&
                         (prefetcher_.is_unused(*slot) || preloader_.is_reading(*slot));
      cache_.pin(*slot);
      filler_->forgive(*slot);
    }
    if (prefetcher_.is_hit(layer, expert, slot)) ++stats_.hits;
    wanted_.push_back(wanted);
  }
  stats_.requests += experts.size();
  prefetcher_.finish(layer, let_go_);
  settle_let_go();

  with_slot_ = 0;
  bool all_have_slots = give_slots();
  if (!all_have_slots) {
    collect(std::chrono::nanoseconds(0));
    all_have_slots = give_slots();
  }
  if (all_have_slots) {
    for (int part = 0; part < filler_->table().num_parts(); ++part) {
      for (const Wanted& wanted : wanted_) enqueue_missing(wanted, part);
    }
  } else {
    enqueue_by_expert();
  }
  filler_->submit();
}

// Slots for the experts that have none, in order, as far as they go. True when all have one.
bool ExpertStore::Core::give_slots() {
  for (; with_slot_ < wanted_.size(); ++with_slot_) {
    Wanted& wanted = wanted_[with_slot_];
    if (wanted.slot >= 0) continue;
    const auto slot = cache_.claim(layer_, wanted.expert);
    if (!slot) return false;
    wanted.slot = *slot;
    cache_.pin(*slot);
    prefetcher_.forget(*slot);
    filler_->begin(*slot, layer_, wanted.expert);
  }
  return true;
}

void ExpertStore::Core::enqueue_missing(const Wanted& wanted, int part) {
  if (wanted.slot < 0 || wanted.is_shared) return;
  if (filler_->state(wanted.slot, part) != PartState::kMissing) return;
  filler_->enqueue(wanted.slot, part);
}

void ExpertStore::Core::enqueue_by_expert() {
  for (const Wanted& wanted : wanted_) {
    for (int part = 0; part < filler_->table().num_parts(); ++part) {
      enqueue_missing(wanted, part);
    }
  }
}

Result<std::span<const ExpertArrival>> ExpertStore::Core::next(const std::stop_token& stop) {
  PENSTOCK_CHECK(stream_is_alive_);
  collect(std::chrono::nanoseconds(0));
  for (;;) {
    if (stop.stop_requested()) {
      return Error{ErrorCode::kCancelled,
                   fmt::format("cancelled while the experts of layer {} were read", layer_)};
    }
    read_again();
    if (auto error = failure()) return std::move(*error);
    if (with_slot_ < wanted_.size()) {
      const size_t first = with_slot_;
      give_slots();
      if (with_slot_ > first) {
        ++stats_.waves;
        enqueue_by_expert();
      }
    }
    filler_->submit();
    gather_arrivals();
    start_wishes();
    const auto is_given = [this](const Wanted& wanted) {
      return wanted.parts_given == filler_->table().num_parts();
    };
    if (!arrivals_.empty() || std::all_of(wanted_.begin(), wanted_.end(), is_given)) {
      return std::span<const ExpertArrival>(arrivals_);
    }
    PENSTOCK_TRY(wait_for_reads(stop));
  }
}

// Reads for a wish or a preload have ended: what failed of them, this stream has not tried yet.
void ExpertStore::Core::read_again() {
  for (Wanted& wanted : wanted_) {
    if (!wanted.is_shared || filler_->is_reading(wanted.slot)) continue;
    wanted.is_shared = false;
    filler_->forgive(wanted.slot);
    for (int part = 0; part < filler_->table().num_parts(); ++part) enqueue_missing(wanted, part);
  }
}

void ExpertStore::Core::gather_arrivals() {
  arrivals_.clear();
  for (size_t i = 0; i < wanted_.size(); ++i) {
    Wanted& wanted = wanted_[i];
    while (wanted.slot >= 0 && wanted.parts_given < filler_->table().num_parts() &&
           filler_->state(wanted.slot, wanted.parts_given) == PartState::kGood) {
      arrivals_.push_back({.index = static_cast<int32_t>(i),
                           .part = wanted.parts_given,
                           .data = filler_->data(wanted.slot, wanted.parts_given)});
      ++wanted.parts_given;
    }
  }
}

Result<void> ExpertStore::Core::wait_for_reads(const std::stop_token& stop) {
  // Nothing on its way and nothing to hand out: every slot is pinned by experts that the caller has
  // got and not released.
  PENSTOCK_CHECK(filler_->reader().in_flight() > 0);
  const int64_t begin_ns = steady_now_ns();
  const std::chrono::nanoseconds step = std::min(kWaitStep, options_.stall_limit);
  for (;;) {
    collect(step);
    const int64_t waited_ns = steady_now_ns() - begin_ns;
    const bool has_ended = !touched_.empty();
    const bool has_stalled = !has_ended && waited_ns >= options_.stall_limit.count();
    if (has_ended || has_stalled || stop.stop_requested()) stats_.wait_ns += waited_ns;
    if (has_ended || stop.stop_requested()) return {};
    if (has_stalled) {
      return Error{
          ErrorCode::kIo,
          fmt::format("layer {}: no answer from the disk for {} s ({} reads of {} are open)",
                      layer_, static_cast<double>(waited_ns / 1'000'000) / 1000,
                      filler_->reader().in_flight(), filler_->table().file->path())};
    }
  }
}

void ExpertStore::Core::collect(std::chrono::nanoseconds timeout) {
  touched_.clear();
  filler_->collect(timeout, touched_);
  for (const int slot : touched_) settle(slot);
  preloader_.count_ended();
}

// A slot leaves `filling` when no read into it is open: ready when all of it is good, free when it
// is not and nobody waits for the rest.
void ExpertStore::Core::settle(int slot) {
  if (cache_.state(slot) != SlotState::kFilling || filler_->is_reading(slot)) return;
  if (filler_->is_complete(slot)) {
    cache_.finish(slot);
  } else if (!cache_.is_pinned(slot)) {
    cache_.forget(slot);
  }
}

std::optional<Error> ExpertStore::Core::failure() const {
  for (const Wanted& wanted : wanted_) {
    if (wanted.slot < 0 || wanted.is_released || wanted.is_shared) continue;
    if (auto error = filler_->failure_of(wanted.slot)) return error;
  }
  return std::nullopt;
}

void ExpertStore::Core::release(int32_t index) {
  PENSTOCK_CHECK(stream_is_alive_ && index >= 0 && index < std::ssize(wanted_));
  Wanted& wanted = wanted_[static_cast<size_t>(index)];
  PENSTOCK_CHECK(!wanted.is_released && wanted.parts_given == filler_->table().num_parts());
  wanted.is_released = true;
  cache_.unpin(wanted.slot);
}

void ExpertStore::Core::end_stream() {
  filler_->clear_queue();
  for (const Wanted& wanted : wanted_) {
    if (wanted.slot < 0 || wanted.is_released) continue;
    cache_.unpin(wanted.slot);
    settle(wanted.slot);
  }
  wanted_.clear();
  with_slot_ = 0;
  stream_is_alive_ = false;
  start_wishes();
}

void ExpertStore::Core::prefetch(int layer, std::span<const int32_t> experts) {
  PENSTOCK_CHECK(layer >= 0 && layer < filler_->table().num_layers);
  PENSTOCK_CHECK(!stream_is_alive_ || layer != layer_);
  if (!options_.prefetch) return;
  prefetcher_.wish(layer, experts, wanted_.size(), let_go_);
  settle_let_go();
  disk_is_idle_ = false;
  start_wishes();
}

// Demand first: every read of the stream at work has been submitted, and the disk is nearly through
// with them. Reads for wishes keep it busy from then on.
void ExpertStore::Core::start_wishes() {
  if (!prefetcher_.has_reads_to_start()) return;
  if (with_slot_ < wanted_.size() || filler_->has_queue()) return;
  disk_is_idle_ = disk_is_idle_ || filler_->reader().in_flight() <= prefetcher_.reads_left_max();
  if (disk_is_idle_) prefetcher_.start();
}

void ExpertStore::Core::keep_reading() {
  if (!filler_->has_queue() && !prefetcher_.has_reads_to_start()) return;
  collect(std::chrono::nanoseconds(0));
  filler_->submit();
  start_wishes();
}

void ExpertStore::Core::settle_let_go() {
  for (const int slot : let_go_) settle(slot);
  let_go_.clear();
}

void ExpertStore::Core::advance_token() {
  ++stats_.steps;
  if (trace_ != nullptr) trace_->begin_step();
  prefetcher_.drop(let_go_);
  settle_let_go();
  prefetcher_.end_step();
}

}  // namespace penstock
