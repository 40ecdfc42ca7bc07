#include "experts/gpu_choice.h"

#include <fmt/format.h>

#include "base/byte_text.h"

namespace penstock {
namespace {

Result<ChosenGpu> open_gpu(const GpuOptions& options) {
  ChosenGpu gpu;
  gpu.system = PENSTOCK_TRY(GpuSystem::open({.validate = options.validate}));
  const int index = options.is_auto() ? PENSTOCK_TRY(gpu.system->choose())
                                      : PENSTOCK_TRY(gpu.system->find(options.device));
  const GpuFacts& facts = gpu.system->devices()[static_cast<size_t>(index)];
  gpu.vram_bytes = PENSTOCK_TRY(vram_budget(facts, options.vram_bytes));
  gpu.has_trunk = takes_trunk(options.trunk, facts.is_unified);
  gpu.device = PENSTOCK_TRY(GpuDevice::create(*gpu.system, index, options.faults));
  return gpu;
}

}  // namespace

Result<uint64_t> vram_budget(const GpuFacts& gpu, uint64_t asked_bytes) {
  const uint64_t there = gpu.budget_bytes > 0 ? gpu.budget_bytes : gpu.memory_bytes;
  if (asked_bytes > there) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--vram {}: {} has {} of memory, of which {} can be had now",
                             format_bytes(asked_bytes), gpu.name, format_bytes(gpu.memory_bytes),
                             format_bytes(there))};
  }
  if (asked_bytes > 0) return asked_bytes;
  if (gpu.is_unified) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} uses this machine's own memory: say with --vram how much of "
                             "--memory it may have",
                             gpu.name)};
  }
  if (there > kVramMargin) return there - kVramMargin;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} has {} of memory free, no more than is left to other programs; say "
                           "with --vram how much of it to use",
                           gpu.name, format_bytes(there))};
}

Result<std::optional<ChosenGpu>> choose_gpu(const GpuOptions& options, const TellLine& tell) {
  if (!options.is_on()) return std::optional<ChosenGpu>();
  Result<ChosenGpu> gpu = open_gpu(options);
  if (gpu) return std::optional<ChosenGpu>(std::move(*gpu));
  if (!options.is_auto()) {
    Error error = gpu.error().with_context("--gpu " + options.device);
    if (error.code == ErrorCode::kNotFound) error.code = ErrorCode::kInvalidArgument;
    return error;
  }
  if (tell) tell("no GPU is used: " + gpu.error().message);
  return std::optional<ChosenGpu>();
}

}  // namespace penstock
