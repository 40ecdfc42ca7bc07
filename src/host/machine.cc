#include "host/machine.h"

#include <fmt/format.h>

namespace penstock {

std::vector<std::string> differences(const MachineIdentity& measured, const MachineIdentity& here) {
  std::vector<std::string> found;
  if (measured.cpu_model != here.cpu_model) {
    found.push_back(fmt::format("it was measured on \"{}\", this is \"{}\"", measured.cpu_model,
                                here.cpu_model));
  }
  if (measured.processors != here.processors) {
    found.push_back(fmt::format("it was measured on {} processors, here are {}",
                                measured.processors, here.processors));
  }
  // Firmware takes a little more or less from boot to boot.
  const auto was = static_cast<double>(measured.memory_bytes);
  const auto is = static_cast<double>(here.memory_bytes);
  if (was < 0.97 * is || was > 1.03 * is) {
    found.push_back(fmt::format("it was measured with {:.1f} GiB of memory, here are {:.1f} GiB",
                                was / (1 << 30), is / (1 << 30)));
  }
  return found;
}

}  // namespace penstock
