#include "store/eviction.h"

#include <cmath>

#include "base/check.h"

namespace penstock {
Decay::Decay(int half_life_runs) {
  constexpr int kHalvings = 21;  // 2^-21 and less counts as nothing
  PENSTOCK_CHECK(half_life_runs >= 1 && half_life_runs <= 100);
  table_.resize(static_cast<size_t>(half_life_runs * kHalvings));
  for (size_t runs = 0; runs < table_.size(); ++runs) {
    table_[runs] = std::exp2(-static_cast<float>(runs) / static_cast<float>(half_life_runs));
  }
}

std::string_view name_of(EvictionPolicy policy) {
  switch (policy) {
    case EvictionPolicy::kLru: return "lru";
    case EvictionPolicy::kLayerLru: return "layer-lru";
    case EvictionPolicy::kLfu: return "lfu";
    case EvictionPolicy::kAgeOverFrequency: return "age-over-frequency";
    case EvictionPolicy::kFrequencyRecency: return "frequency-recency";
  }
  return "?";
}

std::optional<EvictionPolicy> eviction_policy_of(std::string_view name) {
  for (const EvictionPolicy policy : kEvictionPolicies) {
    if (name == name_of(policy)) return policy;
  }
  return std::nullopt;
}

// Among equals the expert goes whose layer runs last from now.
float eviction_score(EvictionPolicy policy, const UseRecord& use) {
  const float age = static_cast<float>(use.age_runs);
  switch (policy) {
    case EvictionPolicy::kLru: return age - use.wait;
    case EvictionPolicy::kLayerLru: return age + use.wait;
    case EvictionPolicy::kLfu: return -use.count;
    case EvictionPolicy::kAgeOverFrequency: return (age + use.wait) / (1.0f + use.count);
    case EvictionPolicy::kFrequencyRecency:
      return -use.count * (1.0f + 2.0f / (1.0f + age)) + 0.01f * use.wait;
  }
  return 0.0f;
}

}  // namespace penstock
