#include "engine/gpu_setup.h"

#include <algorithm>

namespace penstock {

GpuTierLimits gpu_limits(const PlanRequest& request, int64_t chunk_tokens) {
  return {.tokens = chunk_tokens,
          .top_k = request.experts_per_token,
          .hidden_size = request.config.hidden_size,
          .expert_width = request.config.moe_intermediate_size};
}

Result<std::optional<ChosenGpu>> choose_engine_gpu(const EngineOptions& options) {
  if (options.gpu.is_on() && options.arithmetic != Arithmetic::kFixed16) {
    return Error{ErrorCode::kInvalidArgument,
                 "a GPU computes in fixed16 alone: leave out --arithmetic, or --gpu"};
  }
  return choose_gpu(options.gpu, options.tell);
}

uint64_t gpu_host_bytes(const ChosenGpu& gpu, const PlanRequest& request) {
  return gpu_host_bytes(gpu.uses_host_memory(), gpu.vram_bytes, request);
}

uint64_t gpu_host_bytes(bool uses_host_memory, uint64_t vram_bytes, const PlanRequest& request) {
  if (uses_host_memory) return vram_bytes;
  return GpuTier::host_bytes(gpu_limits(request, request.largest_chunk()), request.record_bytes);
}

Result<std::unique_ptr<GpuTier>> open_gpu_tier(std::optional<ChosenGpu> gpu,
                                               std::span<const ExpertForm> forms,
                                               ExpertStore& store, const PlanRequest& request,
                                               int64_t chunk_tokens, const EngineOptions& options) {
  if (!gpu) return std::unique_ptr<GpuTier>();
  Result<std::unique_ptr<GpuTier>> tier = GpuTier::create(
      std::move(*gpu), forms, store, gpu_limits(request, chunk_tokens), options.gpu, options.tell);
  if (tier) return tier;
  const ErrorCode code = tier.error().code;
  const bool is_refused = code == ErrorCode::kInvalidArgument || code == ErrorCode::kUnsupported;
  if (is_refused && !options.gpu.is_auto()) return tier.error();
  if (options.tell) options.tell("no GPU is used: " + tier.error().message);
  return std::unique_ptr<GpuTier>();
}

}  // namespace penstock
