#include "store/eviction.h"

#include <array>
#include <cmath>

namespace penstock {
namespace {

// Between 32 and 64 the hit rate changes by less than a percent.
constexpr float kHalfLifeRuns = 40.0f;
constexpr uint32_t kDecayRunsMax = 1024;  // 2^-21 and less counts as nothing

const std::array<float, kDecayRunsMax>& decay_table() {
  static const auto table = [] {
    std::array<float, kDecayRunsMax> values{};
    for (uint32_t runs = 0; runs < kDecayRunsMax; ++runs) {
      values[runs] = std::exp2(-static_cast<float>(runs) / kHalfLifeRuns);
    }
    return values;
  }();
  return table;
}

}  // namespace

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

float decay_over(uint32_t runs) {
  return runs < kDecayRunsMax ? decay_table()[runs] : 0.0f;
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
