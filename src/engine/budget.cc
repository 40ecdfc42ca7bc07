#include "engine/budget.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"

namespace penstock {

Result<Budget> default_budget(const MemoryAvailability& available, uint64_t all_resident_bytes) {
  constexpr uint64_t kReserveMin = 1ull << 30;
  const uint64_t reserve = std::max(std::min(kReserveMin, available.available_bytes / 8),
                                    available.available_bytes / 20);
  const uint64_t bytes = available.available_bytes - reserve;
  if (all_resident_bytes <= bytes) return Budget{all_resident_bytes, "enough for every expert"};
  return Budget{bytes,
                fmt::format("{}, less a reserve of {}", available.binding, format_bytes(reserve))};
}

Result<std::string> check_plan(const MemoryPlan& plan, const MemoryAvailability& available,
                               const MemoryCeiling& ceiling) {
  if (plan.total_bytes > ceiling.bytes) {
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("the budget cannot be had: the plan takes {}, {} allows {} in all; "
                             "give --memory {} or less, or raise that limit",
                             format_bytes(plan.total_bytes), ceiling.binding,
                             format_bytes(ceiling.bytes), ceiling.bytes)};
  }
  if (plan.total_bytes <= available.available_bytes) return std::string();
  return fmt::format(
      "the plan takes {}, but {} are left now ({}): slots are given back when they "
      "are missing, and what is already in use may be swapped or killed",
      format_bytes(plan.total_bytes), format_bytes(available.available_bytes), available.binding);
}

}  // namespace penstock
