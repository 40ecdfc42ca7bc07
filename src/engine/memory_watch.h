// Gives memory back before the kernel kills: how many expert slots there should be, from what the
// machine has left.
//
// The budget was planned, so the engine itself does not make memory scarce; others do. Each of them
// may take half of what was left when the engine had all it planned, or leave a fixed reserve,
// whichever asks for less: a cgroup that is little larger than the budget is no shortage.
//
//   reserve   half of what is left beside the plan, at least 16 MiB and at most the larger of
//             128 MiB and 1 % of the memory or limit that binds
//   shrink    at once, when less than the reserve is available: as many slots as make it one and a
//             half reserves, never below the floor
//   grow      after ten quiet seconds, a sixteenth of all slots at a time, as long as one and a
//   half
//             reserves remain
//   stalls    when all work waited for memory for more than a twentieth of the last ten seconds,
//   the
//             reserve counts twice and nothing grows: the kernel pays for what looks available
//
// Threads  the computing thread
// Errors   A probe that fails says nothing: the slots stay as they are.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"

namespace penstock {

struct MemoryReading {
  uint64_t available_bytes = 0;
  uint64_t limit_bytes = 0;  // of which that is left
  double stalled_share = 0;  // of the last seconds, all work waited for memory
};

Result<MemoryReading> read_memory();  // of this machine

struct MemoryWatchOptions {
  bool is_on = true;
  std::chrono::nanoseconds every = std::chrono::milliseconds(250);  // a look takes about 0.1 ms
  std::chrono::nanoseconds quiet = std::chrono::seconds(10);        // before slots come back
  std::function<Result<MemoryReading>()> probe = read_memory;
};

// How many slots a cache may have, and what one is worth.
struct SlotLimits {
  int floor = 0;
  int full = 0;
  uint64_t slot_bytes = 0;
};

// `spare`: what is left when all that was planned is in use.
uint64_t memory_reserve(uint64_t spare_bytes, uint64_t limit_bytes);

int slots_wanted(const MemoryReading& reading, uint64_t reserve_bytes, const SlotLimits& limits,
                 int slots_now, bool is_quiet);

class MemoryWatch {
 public:
  using Clock = std::chrono::steady_clock;

  // `planned_bytes` of the process as a whole, of which `resident_bytes` are in use by now.
  MemoryWatch(const MemoryWatchOptions& options, const SlotLimits& limits, uint64_t planned_bytes,
              uint64_t resident_bytes);

  bool is_on() const { return options_.is_on; }
  // The number of slots that there should be, when it is time to look and another than now.
  std::optional<int> look(int slots_now, Clock::time_point now);
  // Memory was short just now, or nobody looked: what counts as quiet begins here.
  void begin_quiet(Clock::time_point now) { quiet_since_ = now; }

 private:
  MemoryWatchOptions options_;
  SlotLimits limits_;
  uint64_t reserve_bytes_ = 0;
  Clock::time_point last_look_;
  Clock::time_point quiet_since_;
};

}  // namespace penstock
