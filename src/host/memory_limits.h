// How much memory this process may still take: the machine's answer and that of every cgroup above.
//
// A container knows limits that free memory does not show, and pages that merely cache files count
// against those limits although they would be given back. So: available is the smallest of
// MemAvailable and, for our cgroup and each one above it, limit - (usage - file cache - reclaimable
// slab). Swap is never counted: an engine that swaps its cache is slower than the disk it saves.
//
//   cgroup v2   memory.max, memory.high, memory.current, memory.stat
//   cgroup v1   memory.limit_in_bytes, memory.usage_in_bytes, memory.stat (total_*)
//
// Threads  Plain functions; they read /proc and /sys.
// Errors   kIo when /proc/meminfo cannot be read. A cgroup that cannot be read sets no limit.
// Source   Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst,
// filesystems/proc.rst.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace penstock {

struct MemoryAvailability {
  uint64_t available_bytes = 0;
  uint64_t limit_bytes = 0;    // what it is left of: MemTotal, or the limit that binds
  std::string binding;         // "memory.max of /sys/fs/cgroup/box (4.0 GiB, 1.0 GiB of it in use)"
  bool is_hard_limit = false;  // a cgroup's, beyond which the kernel kills
};

// `root` is put in front of every path: recorded machines for tests.
Result<MemoryAvailability> memory_available(const std::string& root = "");

// What this process can have at the most, whoever else uses memory now: the machine's memory, or the
// smallest hard limit of our cgroups (memory.max, memory.limit_in_bytes; memory.high only slows).
struct MemoryCeiling {
  uint64_t bytes = 0;
  std::string binding;  // "memory.max of /sys/fs/cgroup/box"
};
Result<MemoryCeiling> memory_ceiling(const std::string& root = "");

// The share of the last ten seconds in which all work of the machine waited for memory, 0 to 1; 0
// where the kernel does not tell.
// Source  Linux Documentation/accounting/psi.rst: "full" of /proc/pressure/memory
double memory_stall_share(const std::string& root = "");

// Of this process; 0 where /proc does not tell.
uint64_t resident_bytes();
uint64_t peak_resident_bytes();

}  // namespace penstock
