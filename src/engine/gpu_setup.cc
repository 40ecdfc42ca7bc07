#include "engine/gpu_setup.h"

#include <utility>

namespace penstock {

GpuTierLimits gpu_limits(const PlanRequest& request, int64_t chunk_tokens) {
  return {.tokens = chunk_tokens,
          .top_k = request.experts_per_token,
          .hidden_size = request.config.hidden_size,
          .expert_width = request.config.moe_intermediate_size,
          .sequences = request.parallel};
}

TrunkCalls trunk_calls(const PlanRequest& request, int64_t chunk_tokens) {
  return {.chunk_tokens = chunk_tokens,
          .sequences = request.parallel,
          .context = request.kv_form == KvForm::kFloat32 ? request.context : 0};
}

Result<std::optional<ChosenGpu>> choose_engine_gpu(const EngineOptions& options) {
  if (options.gpu.is_on() && options.arithmetic != Arithmetic::kFixed16) {
    return Error{ErrorCode::kInvalidArgument,
                 "a GPU computes in fixed16 alone: leave out --arithmetic, or --gpu"};
  }
  return choose_gpu(options.gpu, options.tell);
}

uint64_t gpu_host_bytes(const ChosenGpu& gpu, const PlanRequest& request) {
  return gpu_host_bytes(gpu.uses_host_memory(), gpu.has_trunk, gpu.vram_bytes, request);
}

uint64_t gpu_host_bytes(bool uses_host_memory, bool has_trunk, uint64_t vram_bytes,
                        const PlanRequest& request) {
  if (uses_host_memory) return vram_bytes;
  const uint64_t for_trunk =
      has_trunk ? GpuBackend::bytes_for_rows(
                      trunk_rows(request.config, trunk_calls(request, request.largest_chunk())))
                      .on_host
                : 0;
  return for_trunk +
         GpuTier::host_bytes(gpu_limits(request, request.largest_chunk()), request.record_bytes);
}

uint64_t trunk_room(uint64_t vram_bytes, const GpuTierLimits& limits, uint64_t slot_bytes) {
  if (slot_bytes == 0) return 0;
  const uint64_t for_tier = GpuTier::least_bytes(limits, slot_bytes);
  return vram_bytes > for_tier ? vram_bytes - for_tier : 0;
}

EngineGpu::EngineGpu(ChosenGpu gpu, Backend& cpu, const EngineOptions& options)
    : gpu_(std::move(gpu)), use_(options.tell), cpu_(cpu) {}

Result<std::unique_ptr<EngineGpu>> EngineGpu::open(std::optional<ChosenGpu> gpu, const Parts& parts,
                                                   const EngineOptions& options) {
  if (!gpu) return std::unique_ptr<EngineGpu>();
  std::unique_ptr<EngineGpu> opened(new EngineGpu(std::move(*gpu), parts.cpu, options));
  const Result<void> made = opened->make(parts, options.gpu);
  if (made) return opened;
  const ErrorCode code = made.error().code;
  const bool is_refused = code == ErrorCode::kInvalidArgument || code == ErrorCode::kUnsupported;
  if (is_refused && !options.gpu.is_auto()) return made.error();
  if (options.tell) options.tell("no GPU is used: " + made.error().message);
  return std::unique_ptr<EngineGpu>();
}

Result<void> EngineGpu::make(const Parts& parts, const GpuOptions& options) {
  const uint64_t slot_bytes = GpuTier::slot_bytes(parts.store.table(), parts.forms);
  const uint64_t room = trunk_room(gpu_.vram_bytes, parts.limits, slot_bytes);
  gpu_.device->compute().set_while_looking(
      [&team = parts.team](bool is_looking) { team.keep_awake(is_looking); });
  uint64_t taken = 0;
  if (gpu_.has_trunk && room > 0) taken = PENSTOCK_TRY(make_backend(parts, room, options));
  tier_ = PENSTOCK_TRY(GpuTier::create({.gpu = gpu_,
                                        .use = use_,
                                        .vram_bytes = gpu_.vram_bytes - taken,
                                        .codings = codings_,
                                        .host = HostRows(&parts.team)},
                                       parts.forms, parts.store, parts.limits, options));
  return {};
}

// What it takes of the bytes that are left.
Result<uint64_t> EngineGpu::make_backend(const Parts& parts, uint64_t left,
                                         const GpuOptions& options) {
  const TrunkCandidates candidates(parts.config, parts.weights, options, parts.calls);
  const TrunkChoice choice = candidates.choose(left);
  trunk_types_left_ = {candidates.types_left().begin(), candidates.types_left().end()};
  trunk_fit_ = choice.fit;
  if (choice.trunk.matrices.empty()) return uint64_t{0};
  codings_ = gpu_codings_of(choice.trunk.matrices);
  backend_ = PENSTOCK_TRY(
      GpuBackend::create(*gpu_.device, use_, cpu_, choice.trunk, HostRows(&parts.team)));
  return backend_->report().bytes;
}

void EngineGpu::load() {
  if (backend_) backend_->load();
}

GpuReport EngineGpu::report() const {
  GpuReport report = tier_->report();
  if (backend_) report.trunk = backend_->report();
  report.trunk_fit = trunk_fit_;
  report.trunk_types_left = trunk_types_left_;
  return report;
}

}  // namespace penstock
