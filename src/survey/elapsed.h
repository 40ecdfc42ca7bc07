// How long a measurement has run.
#pragma once

#include <chrono>

namespace penstock {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace penstock
