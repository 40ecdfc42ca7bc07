// macOS has no cgroups: what counts is the machine's memory and the kernel's pages by use. Free,
// speculative and purgeable pages and those that hold files are there for the taking; compressed
// and wired ones are not.
// Source  <mach/vm_statistics.h>, sysctl(3) hw.memsize, kern.memorystatus_vm_pressure_level
#include <mach/mach.h>
#include <sys/resource.h>
#include <sys/sysctl.h>

#include <algorithm>

#include "base/pages.h"
#include "host/memory_limits.h"

namespace penstock {
namespace {

uint64_t machine_bytes() {
  uint64_t bytes = 0;
  size_t size = sizeof bytes;
  return ::sysctlbyname("hw.memsize", &bytes, &size, nullptr, 0) == 0 ? bytes : 0;
}

Error does_not_tell(const char* what) {
  return {ErrorCode::kIo, std::string("the kernel does not tell ") + what + "; give a budget"};
}

}  // namespace

Result<MemoryAvailability> memory_available(const std::string&) {
  vm_statistics64_data_t pages{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  const mach_port_t host = ::mach_host_self();
  const kern_return_t told =
      ::host_statistics64(host, HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count);
  ::mach_port_deallocate(::mach_task_self(), host);
  if (told != KERN_SUCCESS) return does_not_tell("its pages (host_statistics64)");
  // free_count has the speculative ones in it; they are among external_page_count, too.
  const uint64_t free = pages.free_count - std::min(pages.free_count, pages.speculative_count);
  const uint64_t takeable = free + pages.purgeable_count + pages.external_page_count;
  const uint64_t total = machine_bytes();
  if (total == 0) return does_not_tell("hw.memsize");
  return MemoryAvailability{.available_bytes = std::min(total, takeable * page_bytes()),
                            .limit_bytes = total,
                            .binding = "pages that the kernel calls free or holds files in"};
}

Result<MemoryCeiling> memory_ceiling(const std::string&) {
  const uint64_t total = machine_bytes();
  if (total == 0) return does_not_tell("hw.memsize");
  return MemoryCeiling{.bytes = total, .binding = "hw.memsize"};
}

// The kernel knows three levels: normal (1), warning (2), critical (4). The last is when it ends
// programs, and counts as half of the time lost; shares of time it does not tell.
double memory_stall_share(const std::string&) {
  int level = 0;
  size_t size = sizeof level;
  if (::sysctlbyname("kern.memorystatus_vm_pressure_level", &level, &size, nullptr, 0) != 0) {
    return 0;
  }
  return level >= 4 ? 0.5 : 0;
}

uint64_t resident_bytes() {
  mach_task_basic_info_data_t info{};
  mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
  const kern_return_t told = ::task_info(::mach_task_self(), MACH_TASK_BASIC_INFO,
                                         reinterpret_cast<task_info_t>(&info), &count);
  return told == KERN_SUCCESS ? info.resident_size : 0;
}

uint64_t peak_resident_bytes() {
  struct rusage usage {};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<uint64_t>(usage.ru_maxrss);  // bytes, unlike elsewhere
}

}  // namespace penstock
