// Which expert has to go: policies as functions over what is remembered of each expert's uses.
//
// Time is counted in runs of the expert's own layer (a decoded token or a prefill chunk runs every
// layer once). Measured so, an expert of the next layer that was used one token ago has missed no
// chance yet, and one of the layer just past has: a clock common to all layers would call the first
// one the older. The uses of an expert are remembered while it is on flash, too.
//
// Source  bench/cache_replay on recorded routing; docs/performance.md has the numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock {

enum class EvictionPolicy {
  kLru,               // the least recently used
  kLfu,               // the smallest decayed count of uses
  kAgeOverFrequency,  // the largest age / (1 + decayed count)
};

std::string_view name_of(EvictionPolicy policy);
std::optional<EvictionPolicy> eviction_policy_of(std::string_view name);

}  // namespace penstock
