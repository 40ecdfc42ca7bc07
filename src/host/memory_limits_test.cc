// Recorded machines (row R3 of the fault table): what /proc and /sys showed, and what may be taken.

#include "host/memory_limits.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/memory.h"

namespace penstock {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

const char kV2Mount[] = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
const char kV1Mount[] =
    "32 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

using Files = std::map<std::string, std::string>;

struct Machine {
  const char* name;
  double expected_gib;
  const char* binding;  // part of the sentence
  Files files;
};

std::string meminfo(double available_gib) {
  return fmt::format(
      "MemTotal:       33554432 kB\nMemFree:         1000000 kB\nMemAvailable:   {} kB\n"
      "SwapTotal:      8388608 kB\nSwapFree:       8388608 kB\n",
      static_cast<uint64_t>(available_gib * 1024 * 1024));
}

std::string gib(double value) {
  return fmt::format("{}\n", static_cast<uint64_t>(value * static_cast<double>(kGiB)));
}

std::string stat_v2(double inactive, double active, double slab) {
  return fmt::format("anon 1000\nfile 99\ninactive_file {}active_file {}slab_reclaimable {}",
                     gib(inactive), gib(active), gib(slab));
}

// Files of one cgroup, added to a machine.
Files v2(const std::string& path, const std::string& max, const std::string& high, double current,
         const std::string& stat = stat_v2(0, 0, 0)) {
  const std::string folder = "/sys/fs/cgroup" + path;
  return {{folder + "/memory.max", max},
          {folder + "/memory.high", high},
          {folder + "/memory.current", gib(current)},
          {folder + "/memory.stat", stat}};
}

Files v1(const std::string& path, const std::string& limit, double usage, double inactive = 0,
         double active = 0) {
  const std::string folder = "/sys/fs/cgroup/memory" + path;
  return {{folder + "/memory.limit_in_bytes", limit},
          {folder + "/memory.usage_in_bytes", gib(usage)},
          {folder + "/memory.stat", fmt::format("inactive_file 0\ntotal_inactive_file {}"
                                                "total_active_file {}",
                                                gib(inactive), gib(active))}};
}

Files machine(const std::string& cgroup, const std::string& mounts, double available_gib,
              std::initializer_list<Files> cgroups = {}) {
  Files files = {{"/proc/meminfo", meminfo(available_gib)},
                 {"/proc/self/cgroup", cgroup},
                 {"/proc/self/mountinfo", mounts}};
  for (const Files& more : cgroups) files.insert(more.begin(), more.end());
  return files;
}

const char kNoLimitV1[] = "9223372036854771712\n";
const char kMax[] = "max\n";

std::vector<Machine> machines() {
  return {
      {"no_cgroups", 20, "MemAvailable", {{"/proc/meminfo", meminfo(20)}}},
      {"v2_root_without_files", 20, "MemAvailable", machine("0::/\n", kV2Mount, 20)},
      {"v2_max_everywhere", 20, "MemAvailable",
       machine("0::/user\n", kV2Mount, 20, {v2("/user", kMax, kMax, 3)})},
      {"v2_limit_binds", 3, "memory.max of /sys/fs/cgroup/box",
       machine("0::/box\n", kV2Mount, 20, {v2("/box", gib(4), kMax, 1)})},
      {"v2_high_below_max", 1, "memory.high of /sys/fs/cgroup/box",
       machine("0::/box\n", kV2Mount, 20, {v2("/box", gib(4), gib(2), 1)})},
      {"v2_limit_above_free_memory", 5, "MemAvailable",
       machine("0::/box\n", kV2Mount, 5, {v2("/box", gib(16), kMax, 1)})},
      {"v2_parent_binds", 1.5, "memory.max of /sys/fs/cgroup/a (",
       machine("0::/a/b\n", kV2Mount, 20,
               {v2("/a", gib(2), kMax, 0.5), v2("/a/b", gib(8), kMax, 0.25)})},
      {"v2_child_binds", 1, "memory.max of /sys/fs/cgroup/a/b/c",
       machine(
           "0::/a/b/c\n", kV2Mount, 20,
           {v2("/a", gib(9), kMax, 2), v2("/a/b", kMax, kMax, 1), v2("/a/b/c", gib(2), kMax, 1)})},
      {"v2_full_of_page_cache", 3.75, "memory.max",
       machine("0::/box\n", kV2Mount, 20, {v2("/box", gib(4), kMax, 4, stat_v2(2, 1.5, 0.25))})},
      {"v2_used_up", 0, "memory.max",
       machine("0::/box\n", kV2Mount, 20, {v2("/box", gib(2), kMax, 2.5)})},
      {"v2_zero_limit", 0, "memory.max",
       machine("0::/box\n", kV2Mount, 20, {v2("/box", "0\n", kMax, 0)})},
      {"v2_in_a_container_with_its_own_namespace", 3, "memory.max of /sys/fs/cgroup (",
       machine("0::/\n", kV2Mount, 20, {v2("", gib(4), kMax, 1)})},
      {"v2_in_a_container_that_sees_its_outer_path", 3, "memory.max of /sys/fs/cgroup (",
       machine("0::/docker/abc\n", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
               20, {v2("", gib(4), kMax, 1)})},
      {"v2_path_outside_of_the_mount", 3, "memory.max of /sys/fs/cgroup (",
       machine("0::/../other\n", kV2Mount, 20, {v2("", gib(4), kMax, 1)})},
      {"v1_no_limit", 20, "MemAvailable",
       machine("5:cpu,cpuacct:/x\n4:memory:/x\n", kV1Mount, 20, {v1("/x", kNoLimitV1, 3)})},
      {"v1_limit_binds", 2, "memory.limit_in_bytes of /sys/fs/cgroup/memory/x",
       machine("4:memory:/x\n", kV1Mount, 20, {v1("/x", gib(5), 3)})},
      {"v1_parent_binds", 1, "memory.limit_in_bytes of /sys/fs/cgroup/memory/x (",
       machine("4:memory:/x/y\n", kV1Mount, 20,
               {v1("", kNoLimitV1, 9), v1("/x", gib(4), 3), v1("/x/y", gib(4), 1)})},
      {"v1_full_of_page_cache", 4.5, "memory.limit_in_bytes",
       machine("4:memory:/x\n", kV1Mount, 20, {v1("/x", gib(5), 5, 3, 1.5)})},
      {"v1_and_v2_together", 2, "memory.limit_in_bytes",
       machine("4:memory:/x\n0::/x\n",
               std::string(kV1Mount) + "34 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n",
               20, {v1("/x", gib(5), 3)})},
      {"v1_combined_controllers", 2, "memory.limit_in_bytes",
       machine("4:memory,cpu:/x\n",
               "33 30 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup c rw,cpu,memory\n", 20,
               {v1("/x", gib(5), 3)})},
      {"garbage_in_every_file", 20, "MemAvailable",
       machine("what\n:::\n4:memory\n", "x\n\n- - -\n1 2 3 / / - cgroup2\n", 20,
               {v2("", "-5\n", "one\n", 0)})},
      {"swap_does_not_count", 0.5, "MemAvailable",
       machine("0::/box\n", kV2Mount, 0.5,
               {v2("/box", gib(8), kMax, 1), {{"/sys/fs/cgroup/box/memory.swap.max", gib(8)}}})},
  };
}

class RecordedTree {
 public:
  explicit RecordedTree(const Files& files)
      : root_(testing::TempDir() + "penstock_tree_" + std::to_string(getpid())) {
    std::filesystem::remove_all(root_);
    for (const auto& [path, text] : files) {
      std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
      std::ofstream(root_ + path) << text;
    }
  }
  ~RecordedTree() { std::filesystem::remove_all(root_); }
  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

TEST(MemoryAvailable, is_the_smallest_of_all_limits_and_says_which) {
  for (const Machine& machine : machines()) {
    SCOPED_TRACE(machine.name);
    const RecordedTree tree(machine.files);
    const MemoryAvailability found = *memory_available(tree.root());
    EXPECT_NEAR(static_cast<double>(found.available_bytes) / static_cast<double>(kGiB),
                machine.expected_gib, 1e-6);
    EXPECT_NE(found.binding.find(machine.binding), std::string::npos) << found.binding;
  }
}

TEST(MemoryAvailable, says_what_it_is_left_of) {
  const auto limit_gib = [](const Files& files) {
    const RecordedTree tree(files);
    return memory_available(tree.root())->limit_bytes / kGiB;
  };
  EXPECT_EQ(limit_gib({{"/proc/meminfo", meminfo(20)}}), 32u);
  EXPECT_EQ(limit_gib(machine("0::/box\n", kV2Mount, 20, {v2("/box", gib(4), kMax, 1)})), 4u);
}

TEST(MemoryStalls, are_the_share_that_the_kernel_tells) {
  const auto share_of = [](const char* text) {
    const RecordedTree tree(Files{{"/proc/pressure/memory", text}});
    return memory_stall_share(tree.root());
  };
  EXPECT_NEAR(share_of("some avg10=50.00 avg60=1.00 avg300=0.00 total=1\n"
                       "full avg10=12.50 avg60=0.10 avg300=0.00 total=1\n"),
              0.125, 1e-9);
  for (const char* nonsense : {"", "some avg10=50.00\n", "full avg10=x\n", "full avg10=900\n"}) {
    EXPECT_EQ(share_of(nonsense), 0) << nonsense;
  }
  EXPECT_EQ(memory_stall_share("/nowhere"), 0);
}

TEST(MemoryAvailable, without_meminfo_is_an_error) {
  EXPECT_FALSE(memory_available("/nowhere").has_value());
}

TEST(MemoryAvailable, of_this_machine_is_more_than_nothing) {
  const auto found = memory_available();
  if (!found) GTEST_SKIP() << found.error().message;
  EXPECT_GT(found->available_bytes, 1u << 20);
}

TEST(ResidentBytes, follow_what_is_touched) {
  if (resident_bytes() == 0) GTEST_SKIP() << "no /proc/self/status here";
  const uint64_t before = resident_bytes();
  const auto memory = *AlignedMemory::create(64 << 20, "a test", Prefault::kYes);
  EXPECT_GT(resident_bytes(), before + (48 << 20));
  EXPECT_GE(peak_resident_bytes(), before + (48 << 20));
}

}  // namespace
}  // namespace penstock
