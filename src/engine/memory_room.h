// Room for what an engine cannot do without, made before it is taken.
//
// Where a container is full of other engines' slots, those give back as soon as their watch sees that
// less than its reserve is left. So room is made by holding what there is: pages that are present and
// hold nothing, a little more with every look, until all that is needed is held or left. Then the
// pages go back at once and the engine takes them for itself. The caller has the turn
// (host/memory_turn.h), so no other engine takes them in between.
//
//   margin    8 MiB stay free meanwhile: half of the smallest reserve of a watch, and enough for a
//             program that starts
//   patience  when nothing became free for 20 s, nothing will: an error where a limit kills, else
//             the engine goes on, for the system may have other ways (swap)
//
// Threads  the caller's
// Memory   what it holds meanwhile; nothing afterwards
// Errors   kOutOfMemory, with what is needed, what is left and of which limit
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "engine/expert_slots.h"
#include "engine/memory_watch.h"
#include "host/memory_limits.h"

namespace penstock {

struct RoomOptions {
  std::function<Result<MemoryAvailability>()> probe = [] { return memory_available(); };
  std::function<void(const std::string&)> tell = {};  // once, when it has to wait; may be empty
  std::chrono::nanoseconds between_looks = std::chrono::milliseconds(20);
  int looks_max = 1000;  // without any progress
  // Holds so many bytes in all from now on; false: they cannot be had. Empty: real pages.
  std::function<bool(uint64_t)> hold = {};
};

Result<void> make_room(uint64_t bytes, const RoomOptions& options);

// Of what was planned for this process, what it does not use yet.
uint64_t not_yet_in_use(uint64_t planned_bytes);

// Room for the slots beyond the floor: piece by piece, as long as the machine keeps what the watch of this
// engine will want, and what else was planned and is not in use yet (`planned_bytes` of it all).
class RoomForSlots {
 public:
  RoomForSlots(const ExpertSlots& slots, uint64_t planned_bytes, const MemoryWatchOptions& watch);

  // How many slots there may be next, beside the `num_slots` that are there; nothing: no more of them.
  std::optional<int> next(int num_slots);

 private:
  uint64_t missing_bytes(int num_slots) const;
  uint64_t promised_bytes(int num_slots) const;

  SlotLimits limits_;
  uint64_t planned_bytes_;
  MemoryWatchOptions watch_;
  uint64_t reserve_ = 0;
  bool can_look_ = false;
};

// The slots beyond the floor, of stores that have the floor, as far as there is room for them. Those that
// are left out come when the watch finds room.
void add_slots(ExpertSlots& slots, uint64_t planned_bytes, const MemoryWatchOptions& watch);

}  // namespace penstock
