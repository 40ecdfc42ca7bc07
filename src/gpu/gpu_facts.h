// What a GPU says of itself, before anything is done with it.
//
// Threads  plain data
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace penstock {

enum class GpuKind : uint8_t { kDiscrete, kIntegrated, kVirtual, kSoftware, kOther };

constexpr std::string_view name_of(GpuKind kind) {
  switch (kind) {
    case GpuKind::kDiscrete: return "discrete";
    case GpuKind::kIntegrated: return "integrated";
    case GpuKind::kVirtual: return "virtual";
    case GpuKind::kSoftware: return "software";
    case GpuKind::kOther: break;
  }
  return "other";
}

struct GpuFacts {
  int index = 0;     // among the devices of this machine
  std::string name;  // as the driver has it
  GpuKind kind = GpuKind::kOther;
  std::string driver;         // name and version
  std::string api;            // version of Vulkan
  uint64_t memory_bytes = 0;  // of the largest heap of its own
  uint64_t budget_bytes = 0;  // what the driver would let us have of it now; 0: it does not say
  bool is_unified = false;    // its memory is the host's
  // Of memory of this process that it can copy from where it lies (GpuDevice::import); 0: it cannot.
  uint64_t import_alignment = 0;
  std::string refusal;  // why it cannot be used; empty: it can be tried

  bool is_usable() const { return refusal.empty(); }
};

}  // namespace penstock
