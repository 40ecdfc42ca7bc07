#include "engine/slot_arrivals.h"

#include <algorithm>
#include <utility>

#include "base/thread.h"

namespace penstock {

SlotArrivals::SlotArrivals(ExpertSlots& slots, uint64_t promised_bytes,
                           const MemoryWatchOptions& watch, std::optional<MemoryTurn> turn)
    : slots_(slots),
      room_(slots, promised_bytes, watch),
      turn_(std::move(turn)),
      num_present_(slots.num_slots()) {
  Result<std::jthread> thread =
      start_thread([this](const std::stop_token& stop) { make_present(stop); });
  if (thread) {
    thread_ = *std::move(thread);
  } else {
    make_present({});
  }
}

SlotArrivals::~SlotArrivals() = default;

void SlotArrivals::make_present(const std::stop_token& stop) {
  // What take() can see comes often enough, and a stop soon enough.
  constexpr uint64_t kPieceBytesMax = uint64_t{256} << 20;
  const SlotLimits limits = slots_.limits();
  const int step = std::max(1, static_cast<int>(kPieceBytesMax / limits.slot_bytes));
  int present = num_present_;
  while (!stop.stop_requested()) {
    const std::optional<int> wanted = room_.next(present);
    if (!wanted) break;
    const int next = std::min(*wanted, present + step);
    if (!slots_.make_present(present, next)) break;
    present = next;
    const std::scoped_lock lock(mutex_);
    num_present_ = present;
  }
  const std::scoped_lock lock(mutex_);
  turn_.reset();
  has_ended_ = true;
  ended_.notify_all();
}

bool SlotArrivals::take() {
  int present = 0;
  bool has_ended = false;
  {
    const std::scoped_lock lock(mutex_);
    present = num_present_;
    has_ended = has_ended_;
  }
  if (present > slots_.num_slots()) slots_.resize(present);
  return !has_ended;
}

void SlotArrivals::wait() {
  {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return has_ended_; });
  }
  take();
}

}  // namespace penstock
