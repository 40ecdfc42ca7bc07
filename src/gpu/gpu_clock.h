// Seconds of a clock that never goes back: for how long something takes.
//
// Threads  any
#pragma once

#include <chrono>

namespace penstock {

inline double now_in_seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

}  // namespace penstock
