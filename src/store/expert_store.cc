#include "store/expert_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/byte_cursor.h"
#include "base/check.h"
#include "io/read_progress.h"

namespace penstock {
namespace {

// How long next() waits before it looks at its stop token again.
constexpr std::chrono::nanoseconds kWaitStep = std::chrono::milliseconds(50);

// Of what a stream asks for, beside its arrivals.
constexpr uint64_t kStreamBytes = 64;

}  // namespace

ExpertStream::ExpertStream(ExpertStream&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)) {}

ExpertStream::~ExpertStream() {
  if (store_ != nullptr) store_->end_stream();
}

Result<std::span<const ExpertArrival>> ExpertStream::next(std::stop_token stop) {
  return store_->next(stop);
}

void ExpertStream::release(int32_t index) {
  store_->release(index);
}

Result<std::unique_ptr<ExpertStore>> ExpertStore::create(ExpertTable table,
                                                         std::unique_ptr<Reader> reader,
                                                         const StoreOptions& options) {
  PENSTOCK_CHECK(reader != nullptr);
  if (options.num_slots < 1 || options.stall_limit.count() <= 0) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("an expert store needs at least 1 slot and a stall limit, got {} and {} ns",
                    options.num_slots, options.stall_limit.count())};
  }
  PENSTOCK_TRY(check_table(table));
  const uint64_t slot_bytes = SlotLayout(table).slot_bytes();
  if (!checked_multiply(slot_bytes, static_cast<uint64_t>(options.num_slots))) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} slots of {} bytes are more than an address holds",
                             options.num_slots, slot_bytes)};
  }
  auto slots = PENSTOCK_TRY(Slots::create(std::move(table), std::move(reader), options.num_slots,
                                          options.policy, options.half_life_runs, options.verify,
                                          options.team));
  return std::unique_ptr<ExpertStore>(new ExpertStore(std::move(slots), options));
}

ExpertStore::ExpertStore(std::unique_ptr<Slots> slots, const StoreOptions& options)
    : options_(options),
      slots_(std::move(slots)),
      prefetcher_(*slots_, options.ahead),
      preloader_(*slots_) {
  const auto num_experts = static_cast<size_t>(table().num_experts);
  wanted_.reserve(num_experts);
  arrivals_.reserve(num_experts * static_cast<size_t>(SlotLayout(table()).num_parts_max()));
}

ExpertStore::~ExpertStore() {
  PENSTOCK_CHECK(!stream_is_alive_);
  prefetcher_.drop();
  PENSTOCK_CHECK(slots_->cache().num_pinned() == 0);
}

uint64_t ExpertStore::bytes_needed(const ExpertTable& table, const StoreOptions& options) {
  const auto parts_max = static_cast<uint64_t>(SlotLayout(table).num_parts_max());
  return Slots::bytes_needed(table, options.num_slots) + Prefetcher::bytes_needed(table) +
         static_cast<uint64_t>(table.num_experts) *
             (kStreamBytes + sizeof(ExpertArrival) * parts_max);
}

ExpertStream ExpertStore::stream(int layer, std::span<const int32_t> experts,
                                 std::span<const int32_t> nearer) {
  PENSTOCK_CHECK(!stream_is_alive_);
  PENSTOCK_CHECK(layer >= 0 && layer < table().num_layers());
  stream_is_alive_ = true;
  layer_ = layer;
  // What earlier streams left behind. Reads for wishes are looked at when the missing experts have
  // been submitted, because checksums take time; before, only where their slots are needed.
  if (!prefetcher_.has_reads()) collect(std::chrono::nanoseconds(0));
  count_uses(experts, nearer);
  find_wanted(experts);
  prefetcher_.finish(layer_);
  start_reads();
  return ExpertStream(this);
}

ExpertStream ExpertStore::stream_lost(std::span<const int32_t> experts) {
  PENSTOCK_CHECK(!stream_is_alive_);
  stream_is_alive_ = true;
  collect(std::chrono::nanoseconds(0));
  find_wanted(experts);
  start_reads();
  return ExpertStream(this);
}

void ExpertStore::start_reads() {
  bool all_have_slots = give_slots();
  if (!all_have_slots) {
    collect(std::chrono::nanoseconds(0));
    all_have_slots = give_slots();
  }
  if (all_have_slots) {
    const int first_parts = table().layer(layer_).first_parts;
    for (const Wanted& wanted : wanted_) enqueue_missing(wanted, 0, first_parts);
    for (const Wanted& wanted : wanted_) enqueue_missing(wanted, first_parts, num_parts());
  } else {
    enqueue_by_expert();
  }
  slots_->submit();
}

void ExpertStore::count_uses(std::span<const int32_t> experts, std::span<const int32_t> nearer) {
  slots_->begin_run(layer_);
  for (const std::span<const int32_t> used : {experts, nearer}) {
    for (const int32_t expert : used) {
      PENSTOCK_CHECK(expert >= 0 && expert < table().num_experts);
      slots_->record_use({layer_, expert});
    }
  }
  stats_.nearer += nearer.size();
  if (trace_ == nullptr) return;
  std::vector<int32_t> all(experts.begin(), experts.end());
  all.insert(all.end(), nearer.begin(), nearer.end());
  trace_->add(layer_, all);
}

// What is here is pinned first, so that no missing expert takes its slot.
void ExpertStore::find_wanted(std::span<const int32_t> experts) {
  wanted_.clear();
  for (const int32_t expert : experts) {
    const ExpertId id{layer_, expert};
    const auto found = slots_->demand(id);
    const bool is_hit = found && found->is_hit;
    prefetcher_.count_use(layer_, expert, is_hit);
    if (is_hit) ++stats_.hits;
    wanted_.push_back({.expert = expert,
                       .slot = found ? found->slot : -1,
                       .is_shared = found && found->is_shared});
  }
  stats_.requests += experts.size();
  with_slot_ = 0;
}

// Slots for the experts that have none, in order, as far as they go. True when all have one.
bool ExpertStore::give_slots() {
  for (; with_slot_ < wanted_.size(); ++with_slot_) {
    Wanted& wanted = wanted_[with_slot_];
    if (wanted.slot >= 0) continue;
    const auto slot = slots_->acquire({layer_, wanted.expert}, Purpose::kDemand);
    if (!slot) return false;
    wanted.slot = *slot;
  }
  return true;
}

void ExpertStore::enqueue_missing(const Wanted& wanted, int first_part, int end_part) {
  if (wanted.slot < 0 || wanted.is_shared) return;
  for (int part = first_part; part < end_part; ++part) {
    if (slots_->filler().state(wanted.slot, part) == PartState::kMissing) {
      slots_->enqueue(wanted.slot, part);
    }
  }
}

void ExpertStore::enqueue_by_expert() {
  for (const Wanted& wanted : wanted_) enqueue_missing(wanted, 0, num_parts());
}

Result<std::span<const ExpertArrival>> ExpertStore::next(const std::stop_token& stop) {
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
    slots_->submit();
    gather_arrivals();
    start_wishes();
    const auto is_given = [this](const Wanted& w) { return w.parts_given == num_parts(); };
    if (!arrivals_.empty() || std::ranges::all_of(wanted_, is_given)) {
      return std::span<const ExpertArrival>(arrivals_);
    }
    PENSTOCK_TRY(wait_for_reads(stop));
  }
}

// Reads for a wish or a preload have ended: what failed of them, this stream has not tried yet.
void ExpertStore::read_again() {
  for (Wanted& wanted : wanted_) {
    if (!wanted.is_shared || slots_->filler().is_reading(wanted.slot)) continue;
    wanted.is_shared = false;
    slots_->forgive(wanted.slot);
    enqueue_missing(wanted, 0, num_parts());
  }
}

void ExpertStore::gather_arrivals() {
  const SlotFiller& filler = slots_->filler();
  arrivals_.clear();
  for (size_t i = 0; i < wanted_.size(); ++i) {
    Wanted& wanted = wanted_[i];
    while (wanted.slot >= 0 && wanted.parts_given < num_parts() &&
           filler.state(wanted.slot, wanted.parts_given) == PartState::kGood) {
      arrivals_.push_back({.index = static_cast<int32_t>(i),
                           .part = wanted.parts_given,
                           .data = filler.data(wanted.slot, wanted.parts_given)});
      ++wanted.parts_given;
    }
  }
}

Result<void> ExpertStore::wait_for_reads(const std::stop_token& stop) {
  // Nothing on its way and nothing to hand out: every slot is pinned by experts that the caller has
  // got and not released.
  const Reader& reader = slots_->filler().reader();
  PENSTOCK_CHECK(reader.in_flight() > 0);
  const int64_t begin_ns = steady_now_ns();
  const std::chrono::nanoseconds step = std::min(kWaitStep, options_.stall_limit);
  for (;;) {
    const bool has_ended = collect(step) > 0;
    const int64_t waited_ns = steady_now_ns() - begin_ns;
    const bool has_stalled = !has_ended && waited_ns >= options_.stall_limit.count();
    if (has_ended || has_stalled || stop.stop_requested()) stats_.wait_ns += waited_ns;
    if (has_ended || stop.stop_requested()) return {};
    if (has_stalled) {
      const StorageFile* file = slots_->filler().file_being_read();
      return Error{ErrorCode::kIo,
                   fmt::format("layer {}: no answer from the disk for {} s ({} reads are open, one "
                               "of {})",
                               layer_, static_cast<double>(waited_ns / 1'000'000) / 1000,
                               reader.in_flight(), file == nullptr ? "?" : file->path())};
    }
  }
}

size_t ExpertStore::collect(std::chrono::nanoseconds timeout) {
  const size_t ended = slots_->collect(timeout).size();
  preloader_.count_ended();
  return ended;
}

std::optional<Error> ExpertStore::failure() const {
  for (const Wanted& wanted : wanted_) {
    if (wanted.slot < 0 || wanted.is_released || wanted.is_shared) continue;
    if (auto error = slots_->filler().failure_of(wanted.slot)) return error;
  }
  return std::nullopt;
}

void ExpertStore::release(int32_t index) {
  PENSTOCK_CHECK(stream_is_alive_ && index >= 0 && index < std::ssize(wanted_));
  Wanted& wanted = wanted_[static_cast<size_t>(index)];
  PENSTOCK_CHECK(!wanted.is_released && wanted.parts_given == num_parts());
  wanted.is_released = true;
  slots_->unpin(wanted.slot);
}

void ExpertStore::end_stream() {
  slots_->clear_queue();
  for (const Wanted& wanted : wanted_) {
    if (wanted.slot >= 0 && !wanted.is_released) slots_->unpin(wanted.slot);
  }
  wanted_.clear();
  with_slot_ = 0;
  stream_is_alive_ = false;
  start_wishes();
}

bool ExpertStore::has(ExpertId id) const {
  const auto slot = slots_->cache().find(id.layer, id.expert);
  return slot && slots_->cache().state(*slot) == SlotState::kReady;
}

bool ExpertStore::wants_prefetch() const {
  return options_.prefetch && prefetcher_.is_worth_it(wanted_.size());
}

void ExpertStore::prefetch(int layer, std::span<const int32_t> experts) {
  PENSTOCK_CHECK(layer >= 0 && layer < table().num_layers());
  PENSTOCK_CHECK(!stream_is_alive_ || layer != layer_);
  if (!options_.prefetch) return;
  prefetcher_.wish(layer, experts, wanted_.size());
  disk_is_idle_ = false;
  start_wishes();
}

// Demand first: every read of the stream at work has been submitted, and the disk is nearly through
// with them. Reads for wishes keep it busy from then on.
void ExpertStore::start_wishes() {
  if (!prefetcher_.has_reads_to_start()) return;
  const SlotFiller& filler = slots_->filler();
  if (with_slot_ < wanted_.size() || filler.has_queue()) return;
  disk_is_idle_ = disk_is_idle_ || filler.reader().in_flight() <= prefetcher_.reads_left_max();
  if (disk_is_idle_) prefetcher_.start();
}

void ExpertStore::keep_reading() {
  if (!slots_->filler().has_queue() && !prefetcher_.has_reads_to_start()) return;
  collect(std::chrono::nanoseconds(0));
  slots_->submit();
  start_wishes();
}

void ExpertStore::advance_token() {
  ++stats_.steps;
  if (trace_ != nullptr) trace_->begin_step();
  prefetcher_.drop();
  prefetcher_.end_step();
}

}  // namespace penstock
