#include "engine/slot_arrivals.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/thread.h"

namespace penstock {

SlotArrivals::SlotArrivals(ExpertSlots& slots, uint64_t planned_bytes,
                           const MemoryWatchOptions& watch, std::optional<MemoryTurn> turn)
    : slots_(slots),
      room_(slots, planned_bytes, watch),
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

// Others may need memory for a moment only.
std::optional<int> SlotArrivals::next(int present, const std::stop_token& stop) {
  constexpr int kLooks = 6;
  std::optional<int> wanted = room_.next(present);
  for (int look = 1; look < kLooks && !wanted && present < slots_.limits().full; ++look) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    if (stop.stop_requested()) return std::nullopt;
    wanted = room_.next(present);
  }
  return wanted;
}

void SlotArrivals::make_present(const std::stop_token& stop) {
  // What take() can see comes often enough, and a stop soon enough.
  constexpr uint64_t kPieceBytesMax = uint64_t{256} << 20;
  const SlotLimits limits = slots_.limits();
  const int step = std::max(1, static_cast<int>(kPieceBytesMax / limits.slot_bytes));
  int present = num_present_;
  while (!stop.stop_requested()) {
    const std::optional<int> wanted = next(present, stop);
    if (!wanted) break;
    const int end = std::min(*wanted, present + step);
    if (!slots_.make_present(present, end)) break;
    present = end;
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
  if (present > slots_.num_slots()) slots_.add_present(present);
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
