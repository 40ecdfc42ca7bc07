#include "store/expert_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/byte_cursor.h"
#include "base/check.h"
#include "io/read_progress.h"
#include "store/expert_cache.h"
#include "store/slot_filler.h"

namespace penstock {
namespace {

// How long next() waits before it looks at its stop token again.
constexpr std::chrono::nanoseconds kWaitStep = std::chrono::milliseconds(50);

// So few reads in flight leave the disk idle soon: time to read ahead. 5 measured the same; reading
// ahead at once, beside the demand, waits a quarter longer.
constexpr int kReadsLeft = 2;

CacheShape cache_shape(const ExpertTable& table, const StoreOptions& options) {
  return {.num_layers = table.num_layers,
          .num_experts = table.num_experts,
          .num_slots = options.num_slots};
}

}  // namespace

// What a stream asks for lives here and not in the stream, so that its lists are allocated once.
class ExpertStore::Core {
 public:
  Core(std::unique_ptr<SlotFiller> filler, const StoreOptions& options)
      : options_(options),
        filler_(std::move(filler)),
        cache_(cache_shape(filler_->table(), options), options.policy),
        prefetcher_(cache_shape(filler_->table(), options), cache_, *filler_) {
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
    bool is_read_ahead = false;  // for a wish, and not at its end when it was asked for
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
  std::optional<Error> failure() const;
  Result<void> wait_for_reads(const std::stop_token& stop);

  const StoreOptions options_;
  std::unique_ptr<SlotFiller> filler_;
  ExpertCache cache_;
  Prefetcher prefetcher_;
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
      wanted.is_read_ahead = prefetcher_.is_unused(*slot) && filler_->is_reading(*slot);
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
  if (wanted.slot < 0 || filler_->state(wanted.slot, part) != PartState::kMissing) return;
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

// Reads for wishes have ended: what failed of them, this stream has not tried yet.
void ExpertStore::Core::read_again() {
  for (Wanted& wanted : wanted_) {
    if (!wanted.is_read_ahead || filler_->is_reading(wanted.slot)) continue;
    wanted.is_read_ahead = false;
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
    if (wanted.slot < 0 || wanted.is_released || wanted.is_read_ahead) continue;
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
  disk_is_idle_ = disk_is_idle_ || filler_->reader().in_flight() <= kReadsLeft;
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

ExpertStream::ExpertStream(ExpertStream&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)) {}

ExpertStream::~ExpertStream() {
  if (store_ != nullptr) store_->core_->end_stream();
}

Result<std::span<const ExpertArrival>> ExpertStream::next(std::stop_token stop) {
  return store_->core_->next(stop);
}

void ExpertStream::release(int32_t index) {
  store_->core_->release(index);
}

ExpertStore::ExpertStore(std::unique_ptr<Core> core) : core_(std::move(core)) {}
ExpertStore::~ExpertStore() = default;

Result<std::unique_ptr<ExpertStore>> ExpertStore::create(ExpertTable table,
                                                         std::unique_ptr<Reader> reader,
                                                         const StoreOptions& options) {
  PENSTOCK_CHECK(table.file != nullptr && reader != nullptr);
  if (options.num_slots < 1 || options.stall_limit.count() <= 0) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("an expert store needs at least 1 slot and a stall limit, got {} and {} ns",
                    options.num_slots, options.stall_limit.count())};
  }
  PENSTOCK_TRY(check_table(table));
  if (!checked_multiply(table.record_bytes, static_cast<uint64_t>(options.num_slots))) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} slots of {} bytes are more than an address holds",
                             options.num_slots, table.record_bytes)};
  }
  auto filler = PENSTOCK_TRY(
      SlotFiller::create(std::move(table), std::move(reader), options.num_slots, options.verify));
  return std::unique_ptr<ExpertStore>(
      new ExpertStore(std::make_unique<Core>(std::move(filler), options)));
}

ExpertStream ExpertStore::stream(int layer, std::span<const int32_t> experts) {
  core_->begin_stream(layer, experts);
  return ExpertStream(this);
}

bool ExpertStore::wants_prefetch() const {
  return core_->wants_prefetch();
}
void ExpertStore::keep_reading() {
  core_->keep_reading();
}
void ExpertStore::prefetch(int layer, std::span<const int32_t> experts) {
  core_->prefetch(layer, experts);
}
std::span<const LayerRecall> ExpertStore::recall() const {
  return core_->recall();
}
void ExpertStore::advance_token() {
  core_->advance_token();
}
const StoreStats& ExpertStore::stats() const {
  return core_->stats();
}
void ExpertStore::reset_stats() {
  core_->reset_stats();
}
int ExpertStore::num_slots() const {
  return core_->num_slots();
}
std::string ExpertStore::reader_description() const {
  return core_->reader().description();
}
void ExpertStore::set_trace(RoutingTrace* trace) {
  core_->set_trace(trace);
}

uint64_t ExpertStore::bytes_needed(const ExpertTable& table, const StoreOptions& options) {
  const auto num_experts = static_cast<uint64_t>(table.num_experts);
  const uint64_t lists =
      num_experts * (64 + sizeof(ExpertArrival) * table.parts.size());  // of a stream
  return SlotFiller::bytes_needed(table, options.num_slots) +
         ExpertCache::bytes_needed(cache_shape(table, options)) +
         Prefetcher::bytes_needed(cache_shape(table, options)) + lists;
}

}  // namespace penstock
