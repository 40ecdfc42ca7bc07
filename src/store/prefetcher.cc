#include "store/prefetcher.h"

#include <algorithm>

#include "base/check.h"

namespace penstock {
LayerRecall& LayerRecall::operator+=(const LayerRecall& other) {
  chosen += other.chosen;
  foreseen += other.foreseen;
  missed += other.missed;
  missed_foreseen += other.missed_foreseen;
  return *this;
}

Prefetcher::Prefetcher(Slots& slots, const PrefetchOptions& options)
    : slots_(slots), options_(options), switch_(options.share_min) {
  const auto num_experts = static_cast<size_t>(slots.table().num_experts);
  wishes_.reserve(num_experts);
  foresight_.assign(num_experts, Foresight::kNone);
  recall_.resize(slots.table().layers.size());
}

uint64_t Prefetcher::bytes_needed(const ExpertTable& table) {
  return static_cast<uint64_t>(table.num_experts) * (sizeof(Wish) + sizeof(Foresight)) +
         table.layers.size() * sizeof(LayerRecall);
}

bool Prefetcher::all_are_here() const {
  const ExpertCache& cache = slots_.cache();
  const int num_experts = slots_.table().num_layers() * slots_.table().num_experts;
  return cache.num_slots() - cache.num_free() >= num_experts;
}

size_t Prefetcher::wishes_max(size_t wanted) const {
  const auto num_slots = static_cast<size_t>(slots_.cache().num_slots());
  return all_are_here() || wanted >= num_slots ? 0 : (num_slots - wanted) / 2;
}

void Prefetcher::wish(int layer, std::span<const int32_t> experts, size_t wanted) {
  drop();
  if (!is_worth_it(wanted)) return;
  layer_ = layer;
  const size_t most = wishes_max(wanted);
  for (const int32_t expert : experts) {
    PENSTOCK_CHECK(expert >= 0 && static_cast<size_t>(expert) < foresight_.size());
    if (wishes_.size() == most) break;
    if (foresight_of(expert) != Foresight::kNone) continue;  // listed twice
    foresight_of(expert) = Foresight::kWished;
    const int slot = slots_.cache().find(layer, expert).value_or(-1);
    if (slot >= 0) slots_.pin(slot);
    wishes_.push_back({.expert = expert, .slot = slot});
  }
}

int Prefetcher::reads_left_max() const {
  if (layer_ < 0) return 0;
  const int wishes = static_cast<int>(wishes_.size());
  return std::max(num_reads(), wishes * num_reads() / options_.list_left_part);
}

void Prefetcher::start() {
  const Reader& reader = slots_.filler().reader();
  const int wishes = static_cast<int>(wishes_.size());
  const int in_flight_max =
      std::min(reader.capacity() / 2, std::max(options_.experts_ahead * num_reads(),
                                               wishes * num_reads() / options_.list_ahead_part));
  int room = in_flight_max - reader.in_flight();
  for (; next_ < wishes_.size(); ++next_) {
    Wish& wish = wishes_[next_];
    if (wish.slot >= 0) continue;
    if (room < num_reads()) break;
    const auto slot = slots_.acquire({layer_, wish.expert}, Purpose::kWish);
    if (!slot) break;
    slots_.enqueue_all(*slot);
    room -= num_reads();
    wish.slot = *slot;
    foresight_of(wish.expert) = Foresight::kRead;
    ++read_;
    ++stats_.experts;
    stats_.bytes += slots_.filler().read_bytes(layer_, wish.expert);
  }
  slots_.submit();
}

void Prefetcher::count_use(int layer, int expert, bool is_hit) {
  if (layer != layer_) return;
  const bool is_foreseen = foresight_of(expert) != Foresight::kNone;
  if (foresight_of(expert) == Foresight::kRead) ++used_;
  recall_[static_cast<size_t>(layer)] += {.chosen = 1,
                                          .foreseen = is_foreseen ? 1u : 0u,
                                          .missed = is_hit ? 0u : 1u,
                                          .missed_foreseen = is_foreseen && !is_hit ? 1u : 0u};
}

void Prefetcher::finish(int layer) {
  if (layer == layer_ && read_ > 0) {
    switch_.add_layer(read_, used_);
    stats_.used += static_cast<uint64_t>(used_);
  }
  drop();
}

void Prefetcher::drop() {
  for (const Wish& wish : wishes_) {
    foresight_of(wish.expert) = Foresight::kNone;
    if (wish.slot >= 0) slots_.unpin(wish.slot);
  }
  wishes_.clear();
  next_ = 0;
  layer_ = -1;
  read_ = used_ = 0;
}

void Prefetcher::reset_stats() {
  stats_ = {};
  recall_.assign(recall_.size(), {});
}

}  // namespace penstock
