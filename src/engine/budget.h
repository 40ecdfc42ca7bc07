// The memory budget against what the machine and its containers allow.
//
// Threads  plain functions; they read /proc and /sys
// Errors   kIo where the system does not tell; kOutOfMemory for what cannot work
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "engine/memory_plan.h"
#include "host/memory_limits.h"

namespace penstock {

struct Budget {
  uint64_t bytes = 0;
  std::string reason;
};

// What a model can do with (MemoryPlan has both).
struct BudgetNeeds {
  uint64_t minimum_bytes = 0;
  uint64_t all_resident_bytes = 0;
};

// Without --memory: what is available less a reserve for everyone else, but no more than the model
// can use. The reserve is a twentieth, at least a gibibyte, and never more than an eighth: a small
// container has small needs besides. In a container that is full now and large enough, the smallest
// that works: engines that are there give back what a new one needs (engine/memory_room.h).
Budget default_budget(const MemoryAvailability& available, const BudgetNeeds& needs);

// Before anything is allocated. kOutOfMemory when the plan exceeds what the machine or a container
// can ever give; a warning when it exceeds what is left now; else empty.
Result<std::string> check_plan(const MemoryPlan& plan, const MemoryAvailability& available,
                               const MemoryCeiling& ceiling);

}  // namespace penstock
