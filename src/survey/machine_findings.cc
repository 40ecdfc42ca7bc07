#include "survey/machine_findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>

#include "host/memory_limits.h"

namespace penstock {
namespace {

constexpr double kSeekUs = 2000;  // no disk that rotates is faster on average
constexpr uint64_t kSmallFileBytes = uint64_t{4} << 30;

std::optional<int64_t> number_in(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// Our cgroup's path in the hierarchy that has `controller`; "" names the one of version 2.
std::optional<std::string> own_cgroup(const std::string& root, std::string_view controller) {
  std::istringstream lines(system_text(root + "/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_it = controller.empty()
                           ? names == ",,"
                           : names.find("," + std::string(controller) + ",") != std::string::npos;
    if (is_it) return line.substr(second + 1);
  }
  return std::nullopt;
}

// Calls visit(folder) for the cgroup and each one above it.
template <class Visit>
void for_each_cgroup(const std::string& mount, std::string path, const Visit& visit) {
  if (path == "/") path.clear();
  for (;;) {
    visit(mount + path);
    if (path.empty()) return;
    path.resize(path.rfind('/'));
  }
}

// Processors' worth of time that the container grants: the smallest quota of our cgroups.
std::optional<double> cpu_quota(const std::string& root) {
  std::optional<double> quota;
  const auto consider = [&](std::optional<int64_t> time, std::optional<int64_t> period) {
    if (!time || !period || *time <= 0 || *period <= 0) return;
    const double share = static_cast<double>(*time) / static_cast<double>(*period);
    quota = quota ? std::min(*quota, share) : share;
  };
  if (const auto path = own_cgroup(root, "")) {
    for_each_cgroup(root + "/sys/fs/cgroup", *path, [&](const std::string& folder) {
      const std::string text = system_text(folder + "/cpu.max");  // "200000 100000", "max 100000"
      const size_t space = text.find(' ');
      if (space == std::string::npos) return;
      consider(number_in(text), number_in(std::string_view(text).substr(space + 1)));
    });
  }
  if (const auto path = own_cgroup(root, "cpu")) {
    for_each_cgroup(root + "/sys/fs/cgroup/cpu", *path, [&](const std::string& folder) {
      consider(number_in(system_text(folder + "/cpu.cfs_quota_us")),
               number_in(system_text(folder + "/cpu.cfs_period_us")));
    });
  }
  return quota;
}

// A file of the disk's queue; that of the whole disk for a partition.
std::optional<int64_t> queue_value(const std::string& root, const std::string& device,
                                   const char* name) {
  const std::string folder = root + "/sys/dev/block/" + device;
  const auto own = number_in(system_text(folder + "/queue/" + name));
  return own ? own : number_in(system_text(folder + "/../queue/" + name));
}

const FlashPoint* best_flash(const MachineProfile& profile) {
  const auto best = std::ranges::max_element(
      profile.flash, {}, [](const FlashPoint& point) { return point.is_direct ? point.gbps : 0; });
  return best == profile.flash.end() ? nullptr : &*best;
}

}  // namespace

Json to_json(const Finding& finding) {
  return Json{{"level", finding.is_warning ? "warning" : "note"},
              {"text", finding.text},
              {"advice", finding.advice}};
}

std::vector<Finding> settings_findings(const MachineIdentity& machine, const std::string& root) {
  std::vector<Finding> found;
  const std::string huge = system_text(root + "/sys/kernel/mm/transparent_hugepage/enabled");
  if (huge.find("[never]") != std::string::npos) {
    found.push_back({true, "huge pages are off, so the processor looks up addresses more often",
                     "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"});
  }
  const auto swap_kib =
      number_in(value_after(system_text(root + "/proc/meminfo"), "SwapTotal", ':'));
  if (swap_kib.value_or(0) > 0) {
    found.push_back({false,
                     fmt::format("swap is on ({:.1f} GiB): a budget that is too large makes the "
                                 "engine slow instead of failing",
                                 static_cast<double>(*swap_kib) / (1 << 20)),
                     "keep --memory below what is available"});
  }
  const Result<MemoryAvailability> memory = memory_available(root);
  if (memory && memory->binding.find("meminfo") == std::string::npos) {
    found.push_back(
        {false,
         fmt::format("memory is limited to {:.2f} GiB more by {}",
                     static_cast<double>(memory->available_bytes) / (1 << 30), memory->binding),
         ""});
  }
  if (const auto quota = cpu_quota(root); quota && *quota < 0.99 * machine.processors) {
    const int threads = std::max(1, static_cast<int>(*quota));
    found.push_back({true,
                     fmt::format("the container may use {:.1f} of {} processors: threads beyond "
                                 "that are put to sleep in the middle of a token",
                                 *quota, machine.processors),
                     fmt::format("--threads {}", threads)});
  }
  return found;
}

std::vector<Finding> disk_findings(const DiskFacts& facts, const std::string& root) {
  std::vector<Finding> found;
  if (!facts.reads_direct) {
    found.push_back({true,
                     fmt::format("the file system ({}) refuses direct reads of {}: every expert "
                                 "is copied once more and takes page cache beside the budget",
                                 facts.disk.filesystem, facts.path),
                     "keep the model on ext4, XFS or Btrfs"});
    const auto ahead_kib = queue_value(root, facts.disk.device, "read_ahead_kb");
    if (ahead_kib.value_or(0) > 1024) {
      found.push_back(
          {true, fmt::format("read-ahead of {} KiB fetches what nobody asked for", *ahead_kib),
           fmt::format("blockdev --setra 256 {}", facts.disk.source)});
    }
  }
  if (!facts.reader_note.empty()) {
    found.push_back({true, facts.reader_note,
                     "allow io_uring (sysctl kernel.io_uring_disabled=0; in a container also its "
                     "seccomp profile)"});
  }
  // Virtual disks often say that they rotate; a short read tells.
  const bool may_rotate = facts.small_read_us == 0 || facts.small_read_us > kSeekUs;
  if (may_rotate && queue_value(root, facts.disk.device, "rotational").value_or(0) == 1) {
    found.push_back({true,
                     fmt::format("{} says that it is a rotating disk; reads in random order are "
                                 "many times slower there",
                                 facts.disk.source),
                     "keep the model on an SSD"});
  }
  if (facts.file_bytes < kSmallFileBytes) {
    found.push_back({false,
                     fmt::format("{} has only {:.2f} GiB, which a cache in the drive or below a "
                                 "virtual machine may hold: its rate may be too good",
                                 facts.path, static_cast<double>(facts.file_bytes) / (1 << 30)),
                     "measure with a larger model"});
  }
  return found;
}

std::vector<Finding> rate_findings(const MachineProfile& profile) {
  std::vector<Finding> found;
  const FlashPoint* flash = best_flash(profile);
  if (flash != nullptr && flash->gbps < 1.0) {
    found.push_back(
        {true, fmt::format("the disk gives {:.2f} GB/s; NVMe drives give 3 to 14", flash->gbps),
         "a faster disk, or a budget that holds more experts"});
  }
  if (flash != nullptr && profile.sustained_gbps > 0 &&
      profile.sustained_gbps < 0.9 * flash->gbps) {
    found.push_back({true,
                     fmt::format("over {:.0f} s the disk falls from {:.2f} to {:.2f} GB/s",
                                 profile.sustained_s, flash->gbps, profile.sustained_gbps),
                     "see that the drive is cooled"});
  }
  double memory_gbps = 0;
  for (const MemoryPoint& point : profile.memory) {
    memory_gbps = std::max(memory_gbps, point.read_gbps);
  }
  for (const KernelPoint& kernel : profile.kernels) {
    if (kernel.token_gbps < 0.5 * memory_gbps) {
      found.push_back({false,
                       fmt::format("products in {} take {:.1f} GB/s of weights, memory gives "
                                   "{:.1f}: the processor binds",
                                   kernel.dtype, kernel.token_gbps, memory_gbps),
                       ""});
    }
  }
  return found;
}

}  // namespace penstock
