// How much work the grammar of one request may make: an account of steps.
//
// Everything whose cost a hostile text can choose takes its steps from here: putting schemas together,
// trying patterns, telling alternatives apart. All patterns, schemas and tools of a request share one
// account, so that hundreds of expensive ones cost no more than one. Steps and not time: a request is
// refused, or not, wherever and whenever it is made. A step is about 50 ns.
//
// Threads  one at a time
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

namespace penstock {

struct GrammarWork {
  static constexpr uint64_t kSteps = 4'000'000;

  uint64_t steps_left = kSteps;
  // Patterns that were tried, by what they say: whether they are within the limits.
  std::map<std::string, bool> patterns = {};

  // False when there were fewer; then there are none any more.
  bool take(uint64_t steps) {
    const bool is_enough = steps <= steps_left;
    steps_left -= std::min(steps, steps_left);
    return is_enough;
  }
};

}  // namespace penstock
