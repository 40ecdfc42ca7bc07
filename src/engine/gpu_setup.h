// A GPU beside an engine: what it takes of this machine's memory, the resident matrices and the tier of
// experts in its own.
//
// Errors   choose_engine_gpu(): kInvalidArgument, as choose_gpu(). EngineGpu::open(): of a GPU that was named
//          kInvalidArgument and kUnsupported; all else is told, and the engine does without
#pragma once

#include <memory>
#include <optional>

#include "base/thread_pool.h"
#include "engine/gpu_trunk.h"
#include "engine/memory_plan.h"
#include "engine/options.h"
#include "experts/gpu_tier.h"
#include "gpu/gpu_backend.h"
#include "model/resident_weights.h"

namespace penstock {

Result<std::optional<ChosenGpu>> choose_engine_gpu(const EngineOptions& options);

// All that it uses, where its memory is this machine's; else what it shares with it.
uint64_t gpu_host_bytes(const ChosenGpu& gpu, const PlanRequest& request);
uint64_t gpu_host_bytes(bool uses_host_memory, bool has_trunk, uint64_t vram_bytes,
                        const PlanRequest& request);

// How much of a GPU's memory resident matrices may have, beside one slot for an expert. 0: none.
uint64_t trunk_room(uint64_t vram_bytes, const GpuTierLimits& limits, uint64_t slot_bytes);

GpuTierLimits gpu_limits(const PlanRequest& request, int64_t chunk_tokens);
TrunkCalls trunk_calls(const PlanRequest& request, int64_t chunk_tokens);

class EngineGpu {
 public:
  // What it works on; all of it outlives it.
  struct Parts {
    const ModelConfig& config;       // as planned
    const ResidentWeights& weights;  // where they will be; empty: none can lie there
    std::span<const ExpertForm> forms;
    ExpertStore& store;
    Backend& cpu;
    ThreadPool& team;  // of it
    GpuTierLimits limits;
    TrunkCalls calls;
  };

  // Nothing: the engine does without.
  static Result<std::unique_ptr<EngineGpu>> open(std::optional<ChosenGpu> gpu, const Parts& parts,
                                                 const EngineOptions& options);

  // Lets the device begin to reach into the experts' slots, which takes a while.
  void reach_slots() { tier_->reach_slots(); }
  // Before the memory of those behind so many is given back.
  void let_go_of_slots(int num_slots) { tier_->let_go_of_slots(num_slots); }
  // Copies the resident matrices over, when they are loaded.
  void load();

  // The processors' own where no matrix lies there.
  Backend& backend() { return backend_ ? *backend_ : cpu_; }
  ExpertTier& tier() { return *tier_; }
  GpuReport report() const;
  const GpuSystem& system() const { return *gpu_.system; }

 private:
  EngineGpu(ChosenGpu gpu, Backend& cpu, const EngineOptions& options);
  Result<void> make(const Parts& parts, const GpuOptions& options);
  Result<uint64_t> make_backend(const Parts& parts, uint64_t left, const GpuOptions& options);

  ChosenGpu gpu_;
  GpuUse use_;
  Backend& cpu_;
  std::unique_ptr<GpuBackend> backend_;
  std::unique_ptr<GpuTier> tier_;
  int64_t trunk_fit_ = 0;
  std::vector<std::string> trunk_types_left_;
  std::vector<GpuCoding> codings_;  // of resident matrices
};

}  // namespace penstock
