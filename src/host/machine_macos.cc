#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/sysctl.h>

#include "base/thread.h"
#include "host/machine.h"

namespace penstock {
namespace {

std::string told(const char* name) {
  size_t size = 0;
  if (::sysctlbyname(name, nullptr, &size, nullptr, 0) != 0 || size == 0) return "";
  std::string text(size, '\0');
  if (::sysctlbyname(name, text.data(), &size, nullptr, 0) != 0) return "";
  text.resize(text.find('\0') == std::string::npos ? size : text.find('\0'));
  return text;
}

}  // namespace

MachineIdentity this_machine(const std::string&) {
  MachineIdentity machine;
  machine.cpu_model = told("machdep.cpu.brand_string");
  machine.processors = allowed_processors();
  size_t size = sizeof machine.memory_bytes;
  if (::sysctlbyname("hw.memsize", &machine.memory_bytes, &size, nullptr, 0) != 0) {
    machine.memory_bytes = 0;
  }
  const std::string release = told("kern.osrelease");
  machine.kernel = release.empty() ? "" : "Darwin " + release;
  return machine;
}

Result<DiskIdentity> disk_under(const Storage& storage, const std::string& path,
                                const std::string&) {
  const uint64_t device = PENSTOCK_TRY(storage.stat(path)).device;
  DiskIdentity disk;
  disk.device = fmt::format("{}:{}", (device >> 24) & 0xff, device & 0xffffff);
  struct statfs mounted {};
  if (::statfs(path.c_str(), &mounted) == 0) {
    disk.source = mounted.f_mntfromname;
    disk.filesystem = mounted.f_fstypename;
  }
  return disk;
}

}  // namespace penstock
