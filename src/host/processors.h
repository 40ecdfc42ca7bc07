// How many processors this process may keep busy: those of its affinity and cpuset, and no more than
// the time that a container's quota grants.
//
// The number of processors of the machine says little in a container: threads beyond what is granted
// are put to sleep in the middle of a parallel loop, and all others wait for them.
//
//   affinity, cpuset   what the scheduler allows
//   cgroup v2          cpu.max
//   cgroup v1          cpu.cfs_quota_us, cpu.cfs_period_us
//
// Threads  plain functions; they read /proc and /sys
// Errors   a cgroup that cannot be read sets no limit
#pragma once

#include <optional>
#include <string>

namespace penstock {

struct Processors {
  int count = 1;    // the number of threads to take
  int allowed = 1;  // by affinity and cpuset
  std::optional<double> quota;
  std::string binding;  // "cpu.max of /sys/fs/cgroup/box"; empty where no quota binds
};

Processors usable_processors();

// Of a recorded machine: `root` is put in front of /proc and /sys.
Processors processors_within(int allowed, const std::string& root);

}  // namespace penstock
