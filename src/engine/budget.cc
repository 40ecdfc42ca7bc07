#include "engine/budget.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"

namespace penstock {

Budget default_budget(const MemoryAvailability& available, const BudgetNeeds& needs) {
  constexpr uint64_t kReserveMin = 1ull << 30;
  const uint64_t reserve = std::max(std::min(kReserveMin, available.available_bytes / 8),
                                    available.available_bytes / 20);
  const uint64_t bytes = available.available_bytes - reserve;
  if (needs.all_resident_bytes <= bytes) {
    return Budget{needs.all_resident_bytes, "enough for every expert"};
  }
  const bool others_may_give =
      available.is_hard_limit && available.limit_bytes > needs.minimum_bytes;
  if (bytes < needs.minimum_bytes && others_may_give) {
    return Budget{needs.minimum_bytes,
                  "the smallest that works: little is left of " + available.binding};
  }
  return Budget{bytes,
                fmt::format("{}, less a reserve of {}", available.binding, format_bytes(reserve))};
}

Result<std::string> check_plan(const MemoryPlan& plan, const MemoryAvailability& available,
                               const MemoryCeiling& ceiling) {
  if (plan.total_bytes > ceiling.bytes) {
    // No smaller budget helps where the limit is below what works at all.
    const std::string advice =
        plan.minimum_bytes > ceiling.bytes
            ? "raise that limit, or give a smaller --context"
            : fmt::format("give --memory {} or less, or raise that limit", ceiling.bytes);
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("the budget cannot be had: the plan takes {}, {} allows {} in all; {}",
                             format_bytes(plan.total_bytes), ceiling.binding,
                             format_bytes(ceiling.bytes), advice)};
  }
  if (plan.total_bytes <= available.available_bytes) return std::string();
  return fmt::format(
      "the plan takes {}, but {} are left now ({}): slots are given back when they "
      "are missing, and what is already in use may be swapped or killed",
      format_bytes(plan.total_bytes), format_bytes(available.available_bytes), available.binding);
}

}  // namespace penstock
