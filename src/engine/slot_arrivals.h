// Slots of experts whose memory comes while the engine loads its weights and answers its first prompt.
//
// To clear memory takes a second for each 5 to 10 GB, and ten times as long on a virtual machine whose host
// hands it out again. No token waits for that: a thread makes the slots present from the floor on, in the order
// in which a store with free slots fills them, piece by piece and as far as there is room (memory_room.h),
// and between layers the computing thread gives the store those that have come.
//
//   SlotArrivals arrivals(slots, planned_bytes, watch, std::move(turn));
//   while (arrivals.take()) compute(one_layer);
//
// Threads  take(), wait() and the destructor: the computing thread, no stream alive. The thread that makes
//          pages present touches none that a slot in use lies on, and calls the watch's probe.
// Memory   the slots', which were planned
// Errors   memory that cannot be had, or that others need for half a second, ends the arrivals early; num_slots()
//          says so, and the watch takes more when there is room
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "engine/expert_slots.h"
#include "engine/memory_room.h"
#include "engine/memory_watch.h"
#include "host/memory_turn.h"

namespace penstock {

class SlotArrivals {
 public:
  // Of a model without a copy in fewer bits; its floor is there. turn: kept until all have come.
  SlotArrivals(ExpertSlots& slots, uint64_t planned_bytes, const MemoryWatchOptions& watch,
               std::optional<MemoryTurn> turn);
  ~SlotArrivals();  // ends them when the piece that is being cleared is
  SlotArrivals(const SlotArrivals&) = delete;
  SlotArrivals& operator=(const SlotArrivals&) = delete;

  // Gives the store the slots that have come. False: no more will.
  bool take();
  // Until no more will.
  void wait();

 private:
  void make_present(const std::stop_token& stop);
  std::optional<int> next(int present, const std::stop_token& stop);

  ExpertSlots& slots_;
  RoomForSlots room_;
  std::optional<MemoryTurn> turn_;
  std::mutex mutex_;
  std::condition_variable ended_;
  int num_present_;         // mutex_
  bool has_ended_ = false;  // mutex_
  std::jthread thread_;
};

}  // namespace penstock
