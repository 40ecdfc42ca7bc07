#include "store/expert_store.h"

#include <fmt/format.h>

#include <utility>

#include "base/byte_cursor.h"
#include "store/store_core.h"

namespace penstock {

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
  auto filler = PENSTOCK_TRY(SlotFiller::create(std::move(table), std::move(reader),
                                                options.num_slots, options.verify, options.team));
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
ExpertUsage ExpertStore::usage() const {
  return core_->usage();
}
void ExpertStore::restore_usage(const ExpertUsage& usage) {
  core_->restore_usage(usage);
}
void ExpertStore::preload(std::vector<ExpertId> experts) {
  core_->preload(std::move(experts));
}
bool ExpertStore::preload_more(std::chrono::nanoseconds timeout) {
  return core_->preload_more(timeout);
}
const PreloadReport& ExpertStore::preloaded() const {
  return core_->preloaded();
}
int ExpertStore::resize(int num_slots) {
  return core_->resize(num_slots);
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
