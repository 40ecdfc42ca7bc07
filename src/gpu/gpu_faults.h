// What a test lets go wrong with a GPU.
//
// Threads  plain data
#pragma once

#include <cstdint>

namespace penstock {

// The next so many succeed, the one after them fails. Negative: none does.
struct GpuFaults {
  int64_t allocations_before_failure = -1;
  int64_t submits_before_loss = -1;
  int64_t waits_before_silence = -1;  // the time runs out
  bool looks_at_software = false;     // waits as for other devices, though it needs the processors
  int64_t late_answers = 0;           // so often "not yet" before each answer to has_passed()
};

}  // namespace penstock
