#include "store/slots.h"

#include "base/check.h"

namespace penstock {

Result<std::unique_ptr<Slots>> Slots::create(ExpertTable table, std::unique_ptr<Reader> reader,
                                             int num_slots, EvictionPolicy policy,
                                             int half_life_runs, bool verify, ThreadPool* team) {
  const CacheShape shape = shape_of(table, num_slots);
  auto filler = PENSTOCK_TRY(
      SlotFiller::create(std::move(table), std::move(reader), num_slots, verify, team));
  return std::unique_ptr<Slots>(new Slots(std::move(filler), shape, policy, half_life_runs));
}

Slots::Slots(std::unique_ptr<SlotFiller> filler, const CacheShape& shape, EvictionPolicy policy,
             int half_life_runs)
    : filler_(std::move(filler)), cache_(shape, policy, half_life_runs) {
  purposes_.assign(static_cast<size_t>(shape.num_slots), Purpose::kDemand);
  touched_.reserve(static_cast<size_t>(filler_->reader().capacity()));
}

CacheShape Slots::shape_of(const ExpertTable& table, int num_slots) {
  return {
      .num_layers = table.num_layers(), .num_experts = table.num_experts, .num_slots = num_slots};
}

uint64_t Slots::bytes_needed(const ExpertTable& table, int num_slots) {
  return SlotFiller::bytes_needed(table, num_slots) +
         ExpertCache::bytes_needed(shape_of(table, num_slots)) +
         static_cast<uint64_t>(num_slots) * sizeof(Purpose);
}

std::optional<int> Slots::acquire(ExpertId id, Purpose why) {
  if (why == Purpose::kPreload && cache_.num_free() == 0) return std::nullopt;
  const auto slot = cache_.claim(id.layer, id.expert);
  if (!slot) return std::nullopt;
  if (why != Purpose::kPreload) cache_.pin(*slot);
  purposes_[static_cast<size_t>(*slot)] = why;
  filler_->begin(*slot, id.layer, id.expert);
  return slot;
}

std::optional<Slots::Found> Slots::demand(ExpertId id) {
  const auto slot = cache_.find(id.layer, id.expert);
  if (!slot) return std::nullopt;
  Purpose& purpose = purposes_[static_cast<size_t>(*slot)];
  const Found found = {
      .slot = *slot,
      .is_hit = cache_.state(*slot) == SlotState::kReady && purpose != Purpose::kWish,
      .is_shared = filler_->is_reading(*slot) && purpose != Purpose::kDemand};
  purpose = Purpose::kDemand;
  cache_.pin(*slot);
  filler_->forgive(*slot);
  return found;
}

void Slots::set_spare(ExpertId id, bool is_spare) {
  const auto slot = cache_.find(id.layer, id.expert);
  if (slot && cache_.state(*slot) == SlotState::kReady) cache_.set_spare(*slot, is_spare);
}

void Slots::unpin(int slot) {
  cache_.unpin(slot);
  settle(slot);
}

void Slots::enqueue_all(int slot) {
  for (int part = 0; part < filler_->num_parts(slot); ++part) {
    if (filler_->state(slot, part) == PartState::kMissing) filler_->enqueue(slot, part);
  }
}

std::span<const int> Slots::collect(std::chrono::nanoseconds timeout) {
  touched_.clear();
  filler_->collect(timeout, touched_);
  for (const int slot : touched_) settle(slot);
  return touched_;
}

void Slots::settle(int slot) {
  if (cache_.state(slot) != SlotState::kFilling || filler_->is_reading(slot)) return;
  if (filler_->is_complete(slot)) {
    cache_.finish(slot);
  } else if (!cache_.is_pinned(slot)) {
    cache_.forget(slot);
  }
}

void Slots::add_present(int num_slots) {
  std::vector<SlotMove> moves;
  cache_.resize(num_slots, moves);
  PENSTOCK_CHECK(moves.empty());
}

int Slots::resize(int num_slots) {
  const int before = cache_.num_slots();
  if (num_slots > before && !filler_->take_again(before, num_slots)) return before;
  std::vector<SlotMove> moves;
  cache_.resize(num_slots, moves);
  for (const auto& [from, to] : moves) {
    filler_->move(from, to);
    purposes_[static_cast<size_t>(to)] = purposes_[static_cast<size_t>(from)];
  }
  if (cache_.num_slots() < before) filler_->give_back_after(cache_.num_slots());
  return cache_.num_slots();
}

}  // namespace penstock
