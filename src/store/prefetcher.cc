#include "store/prefetcher.h"

#include <algorithm>

#include "base/check.h"

namespace penstock {
namespace {

// So many reads keep a disk busy until the next op has ended. Those of a decoded token come in the
// order of their likelihood, so that what the idle time does not suffice for is not read in vain;
// the long lists of a prompt are nearly certain, and ops are longer.
constexpr int kReadsAhead = 6;

// So few reads in flight leave the disk idle soon. 5 measured the same for a decoded token; reading
// ahead at once, beside its demand, waits a quarter longer.
constexpr int kReadsLeft = 2;

}  // namespace

LayerRecall& LayerRecall::operator+=(const LayerRecall& other) {
  chosen += other.chosen;
  foreseen += other.foreseen;
  missed += other.missed;
  missed_foreseen += other.missed_foreseen;
  return *this;
}

Prefetcher::Prefetcher(const CacheShape& shape, ExpertCache& cache, SlotFiller& filler)
    : cache_(cache), filler_(filler), num_experts_(shape.num_layers * shape.num_experts) {
  wishes_.reserve(static_cast<size_t>(shape.num_experts));
  foresight_.assign(static_cast<size_t>(shape.num_experts), Foresight::kNone);
  is_unused_.assign(static_cast<size_t>(shape.num_slots), false);
  recall_.resize(static_cast<size_t>(shape.num_layers));
}

uint64_t Prefetcher::bytes_needed(const CacheShape& shape) {
  return static_cast<uint64_t>(shape.num_experts) * (sizeof(Wish) + 1) +
         static_cast<uint64_t>(shape.num_slots) +
         static_cast<uint64_t>(shape.num_layers) * sizeof(LayerRecall);
}

size_t Prefetcher::wishes_max(size_t wanted) const {
  const auto num_slots = static_cast<size_t>(cache_.num_slots());
  return all_are_here() || wanted >= num_slots ? 0 : (num_slots - wanted) / 2;
}

void Prefetcher::wish(int layer, std::span<const int32_t> experts, size_t wanted,
                      std::vector<int>& let_go) {
  drop(let_go);
  if (!is_worth_it(wanted)) return;
  layer_ = layer;
  const size_t most = wishes_max(wanted);
  for (const int32_t expert : experts) {
    PENSTOCK_CHECK(expert >= 0 && static_cast<size_t>(expert) < foresight_.size());
    if (wishes_.size() == most) break;
    if (foresight_of(expert) != Foresight::kNone) continue;  // listed twice
    foresight_of(expert) = Foresight::kWished;
    const int slot = cache_.find(layer, expert).value_or(-1);
    if (slot >= 0) cache_.pin(slot);
    wishes_.push_back({.expert = expert, .slot = slot});
  }
}

int Prefetcher::reads_left_max() const {
  return std::max(kReadsLeft, static_cast<int>(wishes_.size()) / 8);
}

void Prefetcher::start() {
  const int num_parts = filler_.table().num_parts();
  const int in_flight_max = std::min(filler_.reader().capacity() / 2,
                                     std::max(kReadsAhead, static_cast<int>(wishes_.size()) / 2));
  int room = in_flight_max - filler_.reader().in_flight();
  for (; next_ < wishes_.size(); ++next_) {
    Wish& wish = wishes_[next_];
    if (wish.slot >= 0) continue;
    if (room < num_parts) break;
    const auto slot = cache_.claim(layer_, wish.expert);
    if (!slot) break;
    cache_.pin(*slot);
    filler_.begin(*slot, layer_, wish.expert);
    for (int part = 0; part < num_parts; ++part) filler_.enqueue(*slot, part);
    room -= num_parts;
    wish.slot = *slot;
    foresight_of(wish.expert) = Foresight::kRead;
    is_unused_[static_cast<size_t>(*slot)] = true;
    ++read_;
    ++stats_.experts;
  }
  filler_.submit();
}

bool Prefetcher::is_hit(int layer, int expert, std::optional<int> slot) {
  const bool is_unused = slot && is_unused_[static_cast<size_t>(*slot)];
  const bool is_hit = slot && !is_unused && cache_.state(*slot) == SlotState::kReady;
  if (slot) is_unused_[static_cast<size_t>(*slot)] = false;
  if (layer != layer_) return is_hit;
  const bool is_foreseen = foresight_of(expert) != Foresight::kNone;
  if (foresight_of(expert) == Foresight::kRead) ++used_;
  recall_[static_cast<size_t>(layer)] += {.chosen = 1,
                                          .foreseen = is_foreseen ? 1u : 0u,
                                          .missed = is_hit ? 0u : 1u,
                                          .missed_foreseen = is_foreseen && !is_hit ? 1u : 0u};
  return is_hit;
}

void Prefetcher::finish(int layer, std::vector<int>& let_go) {
  if (layer == layer_ && read_ > 0) {
    switch_.add_layer(read_, used_);
    stats_.used += static_cast<uint64_t>(used_);
  }
  drop(let_go);
}

void Prefetcher::drop(std::vector<int>& let_go) {
  for (const Wish& wish : wishes_) {
    foresight_of(wish.expert) = Foresight::kNone;
    if (wish.slot < 0) continue;
    cache_.unpin(wish.slot);
    let_go.push_back(wish.slot);
  }
  wishes_.clear();
  next_ = 0;
  layer_ = -1;
  read_ = used_ = 0;
}

void Prefetcher::move(const SlotMove& slots) {
  is_unused_[static_cast<size_t>(slots.to)] = is_unused_[static_cast<size_t>(slots.from)];
  is_unused_[static_cast<size_t>(slots.from)] = false;
}

void Prefetcher::reset_stats() {
  stats_ = {};
  recall_.assign(recall_.size(), {});
}

}  // namespace penstock
