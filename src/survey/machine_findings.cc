#include "survey/machine_findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "host/memory_limits.h"
#include "host/proc_files.h"
#include "host/processors.h"

namespace penstock {
namespace {

constexpr double kSeekUs = 2000;  // no disk that rotates is faster on average
constexpr uint64_t kSmallFileBytes = uint64_t{4} << 30;

// A file of the disk's queue; that of the whole disk for a partition.
std::optional<int64_t> queue_value(const std::string& root, const std::string& device,
                                   const char* name) {
  const std::string folder = root + "/sys/dev/block/" + device;
  const auto own = leading_number(system_text(folder + "/queue/" + name));
  return own ? own : leading_number(system_text(folder + "/../queue/" + name));
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
      leading_number(value_after(system_text(root + "/proc/meminfo"), "SwapTotal", ':'));
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
  const Processors processors = processors_within(machine.processors, root);
  if (!processors.binding.empty()) {
    found.push_back({true,
                     fmt::format("{} grants the time of {:.1f} of {} processors: threads beyond "
                                 "that are put to sleep in the middle of a token",
                                 processors.binding, *processors.quota, machine.processors),
                     fmt::format("--threads {}, which is what is taken here", processors.count)});
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
  if (profile.pages.differ && profile.pages.small_gbps > 1.05 * profile.pages.largest_gbps) {
    found.push_back({false,
                     fmt::format("experts are read at {:.1f} GB/s from the largest pages and at "
                                 "{:.1f} from small ones",
                                 profile.pages.largest_gbps, profile.pages.small_gbps),
                     "measure again with huge pages switched off"});
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
