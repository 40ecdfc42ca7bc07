#include "store/expert_cache.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace penstock {
namespace {

// Victims found by one scan over the slots. A scan of 6,000 takes a tenth of a millisecond, which in
// every run of 40 layers was 5 ms of a token; so those that are not used again stay good for some
// runs, few enough that no layer runs twice and ages hardly change.
constexpr size_t kCandidatesMax = 64;
constexpr int kRunsPerScanMax = 8;

int runs_per_scan(const CacheShape& shape) {
  return std::clamp(shape.num_layers / 4, 1, kRunsPerScanMax);
}

}  // namespace

ExpertCache::ExpertCache(const CacheShape& shape, EvictionPolicy policy, int half_life_runs)
    : shape_(shape), num_slots_(shape.num_slots), policy_(policy), decay_(half_life_runs) {
  PENSTOCK_CHECK(shape.num_layers > 0 && shape.num_experts > 0 && shape.num_slots > 0);
  const size_t num_records = index_of(shape.num_layers, 0);
  slots_.resize(static_cast<size_t>(shape.num_slots));
  slot_of_.assign(num_records, -1);
  uses_.resize(num_records);
  runs_.assign(static_cast<size_t>(shape.num_layers), 0);
  free_.reserve(slots_.size());
  for (int slot = shape.num_slots - 1; slot >= 0; --slot) free_.push_back(slot);
  candidates_.reserve(slots_.size());
}

uint64_t ExpertCache::bytes_needed(const CacheShape& shape) {
  const uint64_t experts =
      static_cast<uint64_t>(shape.num_layers) * static_cast<uint64_t>(shape.num_experts);
  const uint64_t slots = static_cast<uint64_t>(shape.num_slots);
  return experts * (sizeof(int32_t) + sizeof(Use)) +
         slots * (sizeof(Slot) + sizeof(int) + sizeof(Candidate));
}

void ExpertCache::begin_run(int layer) {
  ++runs_[static_cast<size_t>(layer)];
  layer_now_ = layer;
  if (++runs_since_scan_ >= runs_per_scan(shape_)) candidates_.clear();
}

void ExpertCache::record_use(int layer, int expert) {
  const uint32_t run = runs_[static_cast<size_t>(layer)];
  Use& use = uses_[index_of(layer, expert)];
  use.count = use.count * decay_.over(run - use.run) + 1.0f;
  use.run = run;
}

std::vector<float> ExpertCache::usage() const {
  std::vector<float> counts(uses_.size());
  for (size_t i = 0; i < counts.size(); ++i) {
    const uint32_t run = runs_[i / static_cast<size_t>(shape_.num_experts)];
    counts[i] = uses_[i].count * decay_.over(run - uses_[i].run);
  }
  return counts;
}

float ExpertCache::count_of(int layer, int expert) const {
  const Use& use = uses_[index_of(layer, expert)];
  return use.count * decay_.over(runs_[static_cast<size_t>(layer)] - use.run);
}

void ExpertCache::restore_usage(std::span<const float> counts) {
  PENSTOCK_CHECK(counts.size() == uses_.size());
  for (size_t i = 0; i < counts.size(); ++i) {
    uses_[i] = {.run = runs_[i / static_cast<size_t>(shape_.num_experts)], .count = counts[i]};
  }
}

std::optional<int> ExpertCache::find(int layer, int expert) const {
  const int32_t slot = slot_of_[index_of(layer, expert)];
  if (slot < 0) return std::nullopt;
  return slot;
}

std::optional<int> ExpertCache::claim(int layer, int expert) {
  PENSTOCK_DCHECK(!find(layer, expert).has_value());
  std::optional<int> slot;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else {
    slot = take_victim();
    if (!slot) return std::nullopt;
  }
  Slot& record = slots_[static_cast<size_t>(*slot)];
  record.layer = layer;
  record.expert = expert;
  record.state = SlotState::kFilling;
  record.is_spare = false;
  slot_of_[index_of(layer, expert)] = *slot;
  return slot;
}

void ExpertCache::finish(int slot) {
  Slot& record = slots_[static_cast<size_t>(slot)];
  PENSTOCK_CHECK(record.state == SlotState::kFilling);
  record.state = SlotState::kReady;
}

void ExpertCache::forget(int slot) {
  Slot& record = slots_[static_cast<size_t>(slot)];
  PENSTOCK_CHECK(record.state != SlotState::kFree && record.pins == 0);
  slot_of_[index_of(record.layer, record.expert)] = -1;
  record = Slot{};
  free_.push_back(slot);
}

void ExpertCache::pin(int slot) {
  Slot& record = slots_[static_cast<size_t>(slot)];
  PENSTOCK_CHECK(record.state != SlotState::kFree);
  if (++record.pins == 1) ++num_pinned_;
}

void ExpertCache::unpin(int slot) {
  Slot& record = slots_[static_cast<size_t>(slot)];
  PENSTOCK_CHECK(record.pins > 0);
  if (--record.pins == 0) --num_pinned_;
}

void ExpertCache::set_spare(int slot, bool is_spare) {
  Slot& record = slots_[static_cast<size_t>(slot)];
  PENSTOCK_CHECK(record.state == SlotState::kReady);
  if (record.is_spare && !is_spare) candidates_.clear();  // it may be among them
  record.is_spare = is_spare;
}

float ExpertCache::score_of(const Slot& slot) const {
  if (slot.is_spare) return std::numeric_limits<float>::max();
  const Use& use = uses_[index_of(slot.layer, slot.expert)];
  const uint32_t age_runs = runs_[static_cast<size_t>(slot.layer)] - use.run;
  // The layer that runs now comes again in a whole step, the next one in 1 / num_layers of it.
  const int layers_ahead =
      (slot.layer - layer_now_ - 1 + 2 * shape_.num_layers) % shape_.num_layers;
  return eviction_score(policy_, {.age_runs = age_runs,
                                  .count = use.count * decay_.over(age_runs),
                                  .wait = static_cast<float>(layers_ahead + 1) /
                                          static_cast<float>(shape_.num_layers)});
}

// Equal scores go by slot number, so that a replay gives the same result everywhere.
void ExpertCache::find_candidates(size_t most) {
  candidates_.clear();
  for (int slot = 0; slot < num_slots_; ++slot) {
    const Slot& record = slots_[static_cast<size_t>(slot)];
    if (!is_evictable(record)) continue;
    const size_t index = index_of(record.layer, record.expert);
    candidates_.push_back({.score = score_of(record),
                           .slot = slot,
                           .expert_index = static_cast<uint32_t>(index),
                           .last_run = uses_[index].run});
  }
  runs_since_scan_ = 0;
  const auto is_sooner = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.slot < b.slot;
  };
  const size_t kept = std::min(candidates_.size(), most);
  const auto middle = candidates_.begin() + static_cast<std::ptrdiff_t>(kept);
  std::partial_sort(candidates_.begin(), middle, candidates_.end(), is_sooner);
  candidates_.erase(middle, candidates_.end());
  std::reverse(candidates_.begin(), candidates_.end());
}

// Whether nothing has happened to the slot since the scan: it may have been used, pinned, forgotten
// or already refilled.
bool ExpertCache::is_still_good(const Candidate& candidate) const {
  const Slot& record = slots_[static_cast<size_t>(candidate.slot)];
  return is_evictable(record) && index_of(record.layer, record.expert) == candidate.expert_index &&
         uses_[candidate.expert_index].run == candidate.last_run;
}

// A slot that became evictable since the scan waits for the next one.
std::optional<int> ExpertCache::next_victim() {
  for (int scan = 0; scan < 2; ++scan) {
    for (; !candidates_.empty(); candidates_.pop_back()) {
      if (is_still_good(candidates_.back())) return candidates_.back().slot;
    }
    find_candidates(kCandidatesMax);
  }
  return std::nullopt;
}

std::optional<int> ExpertCache::take_victim() {
  const std::optional<int> slot = next_victim();
  if (!slot) return std::nullopt;
  candidates_.pop_back();
  const Slot& record = slots_[static_cast<size_t>(*slot)];
  slot_of_[index_of(record.layer, record.expert)] = -1;
  ++evictions_;
  return slot;
}

void ExpertCache::resize(int num_slots, std::vector<SlotMove>& moves) {
  PENSTOCK_CHECK(num_slots > 0 && num_slots <= shape_.num_slots);
  if (num_slots < num_slots_) shrink(num_slots, moves);
  for (int slot = num_slots - 1; slot >= num_slots_; --slot) free_.push_back(slot);
  num_slots_ = std::max(num_slots, num_slots_);
}

void ExpertCache::shrink(int num_slots, std::vector<SlotMove>& moves) {
  const auto is_held = [this](int slot) {
    const Slot& record = slots_[static_cast<size_t>(slot)];
    return record.state != SlotState::kFree && !is_evictable(record);
  };
  int end = num_slots_;
  while (end > num_slots && !is_held(end - 1)) --end;
  int held = 0;
  for (int slot = 0; slot < end; ++slot) held += is_held(slot);

  std::erase_if(free_, [end](int slot) { return slot >= end; });
  find_candidates(slots_.size());  // the first to go is the last one
  const auto room = static_cast<size_t>(end - held);
  for (; candidates_.size() > room; candidates_.pop_back()) {
    const int slot = candidates_.back().slot;
    Slot& record = slots_[static_cast<size_t>(slot)];
    slot_of_[index_of(record.layer, record.expert)] = -1;
    record = Slot{};
    if (slot < end) free_.push_back(slot);
    ++evictions_;
  }
  for (const Candidate& kept : candidates_) {
    if (kept.slot < end) continue;
    const int to = free_.back();
    free_.pop_back();
    Slot& record = slots_[static_cast<size_t>(kept.slot)];
    slots_[static_cast<size_t>(to)] = record;
    slot_of_[index_of(record.layer, record.expert)] = to;
    record = Slot{};
    moves.push_back({.from = kept.slot, .to = to});
  }
  candidates_.clear();
  num_slots_ = end;
}

}  // namespace penstock
