// A GPU beside an engine: what it takes of this machine's memory, and the tier of experts in it.
//
// Errors   choose_engine_gpu(): kInvalidArgument, as choose_gpu(). open_gpu_tier(): of a GPU that was named
//          kInvalidArgument and kUnsupported; all else is told, and the engine does without
#pragma once

#include <memory>
#include <optional>

#include "engine/memory_plan.h"
#include "engine/options.h"
#include "experts/gpu_tier.h"

namespace penstock {

Result<std::optional<ChosenGpu>> choose_engine_gpu(const EngineOptions& options);

// All that it uses, where its memory is this machine's; else what it shares with it.
uint64_t gpu_host_bytes(const ChosenGpu& gpu, const PlanRequest& request);
uint64_t gpu_host_bytes(bool uses_host_memory, uint64_t vram_bytes, const PlanRequest& request);

GpuTierLimits gpu_limits(const PlanRequest& request, int64_t chunk_tokens);

// Nothing: the engine does without.
Result<std::unique_ptr<GpuTier>> open_gpu_tier(std::optional<ChosenGpu> gpu,
                                               std::span<const ExpertForm> forms,
                                               ExpertStore& store, const PlanRequest& request,
                                               int64_t chunk_tokens, const EngineOptions& options);

}  // namespace penstock
