// Which expert has to go: policies as functions over what is remembered of an expert's uses.
//
// Age is counted in runs of the expert's own layer (a decoded token or a prefill chunk runs every
// layer once), so it says how many chances to be used were missed. Among experts that missed
// equally many, those go first whose layer runs last from now; plain LRU, with one clock for all
// layers, gives away those of the next layer, just before they are needed. Uses are remembered also
// while the expert is on flash.
//
// Source  bench/cache_replay.cc on recorded routing; docs/performance/eviction.md has the numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace penstock {

// The first is the default.
enum class EvictionPolicy {
  kFrequencyRecency,  // the smallest decayed count, a recent use counting up to three times
  kAgeOverFrequency,  // the largest age / (1 + decayed count)
  kLfu,               // the smallest decayed count of uses
  kLayerLru,          // the largest age on the clock of its own layer
  kLru,               // plain: the least recently used, on one clock for all layers
};

inline constexpr EvictionPolicy kEvictionPolicies[] = {
    EvictionPolicy::kFrequencyRecency, EvictionPolicy::kAgeOverFrequency, EvictionPolicy::kLfu,
    EvictionPolicy::kLayerLru, EvictionPolicy::kLru};

std::string_view name_of(EvictionPolicy policy);
std::optional<EvictionPolicy> eviction_policy_of(std::string_view name);

struct UseRecord {
  uint32_t age_runs = 0;  // runs of its layer since the last use; 0: used in the latest
  float count = 0.0f;     // of uses, decayed to now
  float wait = 0.0f;      // share of a step until its layer runs again, in (0, 1]
};

// The largest score is evicted first.
float eviction_score(EvictionPolicy policy, const UseRecord& use);

// Between 32 and 64 the hit rate changes by less than a percent.
inline constexpr int kHalfLifeRuns = 40;

// What is left of a count of uses after so many runs of its layer. A table of up to 8 KiB.
class Decay {
 public:
  explicit Decay(int half_life_runs = kHalfLifeRuns);  // 1 to 100

  float over(uint32_t runs) const { return runs < table_.size() ? table_[runs] : 0.0f; }

 private:
  std::vector<float> table_;
};

}  // namespace penstock
