// Recorded machines: what affinity and cgroups of both kinds grant, and how many threads that is.

#include "host/processors.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/thread.h"

namespace penstock {
namespace {

const char kCpuMountV2[] = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
const char kCpuMountV1[] =
    "32 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 30 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
const char kInContainerV1[] =
    "32 30 0:27 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";

struct RecordedMachine {
  const char* name;
  int allowed;
  int expected;
  const char* binding;  // a part of it; empty: nothing binds
  std::map<std::string, std::string> files;
};

const RecordedMachine kMachines[] = {
    {"nothing known", 8, 8, "", {}},
    {"no limit, v2",
     8,
     8,
     "",
     {{"/proc/self/cgroup", "0::/box\n"},
      {"/proc/self/mountinfo", kCpuMountV2},
      {"/sys/fs/cgroup/box/cpu.max", "max 100000\n"}}},
    {"own limit, v2",
     8,
     2,
     "cpu.max of /sys/fs/cgroup/box",
     {{"/proc/self/cgroup", "0::/box\n"},
      {"/proc/self/mountinfo", kCpuMountV2},
      {"/sys/fs/cgroup/box/cpu.max", "200000 100000\n"}}},
    {"a limit above, v2",
     8,
     3,
     "cpu.max of /sys/fs/cgroup/a",
     {{"/proc/self/cgroup", "0::/a/b/c\n"},
      {"/proc/self/mountinfo", kCpuMountV2},
      {"/sys/fs/cgroup/a/cpu.max", "300000 100000\n"},
      {"/sys/fs/cgroup/a/b/cpu.max", "600000 100000\n"},
      {"/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n"}}},
    {"half a processor is one",
     8,
     1,
     "cpu.max",
     {{"/proc/self/cgroup", "0::/box\n"},
      {"/proc/self/mountinfo", kCpuMountV2},
      {"/sys/fs/cgroup/box/cpu.max", "50000 100000\n"}}},
    {"two and a half are two",
     8,
     2,
     "cpu.max",
     {{"/proc/self/cgroup", "0::/box\n"},
      {"/proc/self/mountinfo", kCpuMountV2},
      {"/sys/fs/cgroup/box/cpu.max", "250000 100000\n"}}},
    {"more quota than processors",
     4,
     4,
     "",
     {{"/proc/self/cgroup", "0::/box\n"},
      {"/proc/self/mountinfo", kCpuMountV2},
      {"/sys/fs/cgroup/box/cpu.max", "1600000 100000\n"}}},
    {"another period",
     16,
     6,
     "cpu.max",
     {{"/proc/self/cgroup", "0::/box\n"},
      {"/proc/self/mountinfo", kCpuMountV2},
      {"/sys/fs/cgroup/box/cpu.max", "60000 10000\n"}}},
    {"own limit, v1",
     8,
     4,
     "cpu.cfs_quota_us of /sys/fs/cgroup/cpu,cpuacct/docker/a",
     {{"/proc/self/cgroup", "4:cpu,cpuacct:/docker/a\n5:cpuset:/\n"},
      {"/proc/self/mountinfo", kCpuMountV1},
      {"/sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us", "400000\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000\n"}}},
    {"no limit, v1",
     8,
     8,
     "",
     {{"/proc/self/cgroup", "4:cpu,cpuacct:/docker/a\n"},
      {"/proc/self/mountinfo", kCpuMountV1},
      {"/sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us", "-1\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000\n"}}},
    {"inside a container, v1",
     8,
     1,
     "cpu.cfs_quota_us of /sys/fs/cgroup/cpu",
     {{"/proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n"},
      {"/proc/self/mountinfo", kInContainerV1},
      {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"},
      {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}}},
    {"nonsense is no limit",
     8,
     8,
     "",
     {{"/proc/self/cgroup", "0::/box\nrubbish\n"},
      {"/proc/self/mountinfo", kCpuMountV2},
      {"/sys/fs/cgroup/box/cpu.max", "200000"},
      {"/sys/fs/cgroup/cpu.max", "200000 0\n"}}},
};

TEST(Processors, affinity_and_the_smallest_quota_of_any_cgroup_above_us) {
  for (const RecordedMachine& machine : kMachines) {
    const std::string root = testing::TempDir() + "penstock_cpus_" + std::to_string(getpid());
    std::filesystem::remove_all(root);
    for (const auto& [path, text] : machine.files) {
      const std::filesystem::path file = root + path;
      std::filesystem::create_directories(file.parent_path());
      std::ofstream(file) << text;
    }
    const Processors found = processors_within(machine.allowed, root);
    EXPECT_EQ(found.count, machine.expected) << machine.name;
    EXPECT_EQ(found.allowed, machine.allowed);
    EXPECT_EQ(found.binding.empty(), std::string(machine.binding).empty()) << machine.name;
    EXPECT_NE(found.binding.find(machine.binding), std::string::npos) << found.binding;
    std::filesystem::remove_all(root);
  }
}

TEST(Processors, those_that_affinity_takes_away_are_not_counted) {
  cpu_set_t kept, one;
  ASSERT_EQ(::sched_getaffinity(0, sizeof kept, &kept), 0);
  int first = 0;
  while (!CPU_ISSET(first, &kept)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(allowed_processors(), 1);
  EXPECT_EQ(usable_processors().count, 1);
  ASSERT_EQ(::sched_setaffinity(0, sizeof kept, &kept), 0);
  EXPECT_EQ(allowed_processors(), CPU_COUNT(&kept));
}

}  // namespace
}  // namespace penstock
