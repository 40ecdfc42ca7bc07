#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <sstream>

#include "base/thread.h"
#include "host/machine.h"
#include "host/proc_files.h"

namespace penstock {

MachineIdentity this_machine(const std::string& root) {
  MachineIdentity machine;
  const std::string cpu = system_text(root + "/proc/cpuinfo");
  machine.cpu_model = value_after(cpu, "model name", ':');
  if (machine.cpu_model.empty()) machine.cpu_model = value_after(cpu, "CPU part", ':');
  machine.processors = allowed_processors();
  const std::string total = value_after(system_text(root + "/proc/meminfo"), "MemTotal", ':');
  machine.memory_bytes = static_cast<uint64_t>(leading_number(total).value_or(0)) * 1024;
  const std::string release =
      without_blanks_around(system_text(root + "/proc/sys/kernel/osrelease"));
  machine.kernel = release.empty() ? "" : "Linux " + release;
  return machine;
}

Result<DiskIdentity> disk_under(const Storage& storage, const std::string& path,
                                const std::string& root) {
  const uint64_t device = PENSTOCK_TRY(storage.stat(path)).device;
  DiskIdentity disk;
  disk.device = fmt::format("{}:{}", gnu_dev_major(device), gnu_dev_minor(device));
  // mountinfo: id parent DEVICE root point options... - TYPE SOURCE superoptions
  std::istringstream lines(system_text(root + "/proc/self/mountinfo"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string id, parent, mounted, word;
    fields >> id >> parent >> mounted;
    if (mounted != disk.device) continue;
    while (fields >> word && word != "-") {
    }
    fields >> disk.filesystem >> disk.source;
    break;
  }
  return disk;
}

}  // namespace penstock
