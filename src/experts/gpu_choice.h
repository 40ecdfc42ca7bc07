// Which GPU of this machine is used, and how much of its memory.
//
// Memory   what drivers take, some ten MiB
// Errors   choose_gpu(): of a GPU that was named kInvalidArgument (another name, another --vram),
//          kUnsupported, kIo, each saying what there is
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "experts/gpu_options.h"
#include "gpu/gpu_device.h"
#include "gpu/gpu_system.h"

namespace penstock {

struct ChosenGpu {
  std::unique_ptr<GpuSystem> system;
  std::unique_ptr<GpuDevice> device;  // of the system
  uint64_t vram_bytes = 0;            // for all that is put there
  bool has_trunk = false;             // resident matrices among it

  bool uses_host_memory() const { return device->facts().is_unified; }
};

// Called with a line for a person.
using TellLine = std::function<void(const std::string&)>;

// What stays free for screens and other programs, where nobody says how much to use.
inline constexpr uint64_t kVramMargin = uint64_t{1} << 30;

// So much of a GPU: --vram, or what is free there less the margin.
Result<uint64_t> vram_budget(const GpuFacts& gpu, uint64_t asked_bytes);

// Nothing where none is asked for. Where "auto" finds none, `tell` hears why.
Result<std::optional<ChosenGpu>> choose_gpu(const GpuOptions& options, const TellLine& tell);

}  // namespace penstock
