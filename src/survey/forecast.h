// Forecast: the memory plan and the cost model together. "Would this model run in this much
// memory, how fast, and what would help?"
//
// A pure function of shapes and rates, so it can be asked about models and machines that nobody has
// yet. For a model that is packed its own sizes go in; for a shape they follow from the bits.
//
// A GPU is forecast as the engine uses it today: matrices that every token needs and experts in its
// memory are multiplied there, all else is the processors'; prompts are forecast as
// without it.
//
// Errors  make_forecast(): kOutOfMemory (the budget is below the floor), kInvalidArgument (rates; too
//         little of a GPU's memory). use_gpu(): kInvalidArgument, kUnsupported (types of experts)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "engine/gpu_trunk.h"
#include "engine/memory_plan.h"
#include "model/resident_weights.h"
#include "survey/cost_model.h"
#include "survey/gpu_card.h"

namespace penstock {

struct ForecastGpu {
  GpuCard card;
  uint64_t vram_bytes = 0;
  std::optional<TrunkCandidates> trunk;  // matrices that could lie there
};

struct ForecastRequest {
  PlanRequest plan;  // config, budget, context, threads, experts per token; sizes of weights
  StoredBits bits;   // of the weights; the table over bits replaces those of the experts
  ModelSizes sizes;
  ResidentWeights weights;  // types and shapes, without bytes
  MachineRates rates;
  HitModel hits;
  ReadAhead read_ahead = kReadAheadMeasured;
  int64_t prompt_tokens = 1024;
  std::optional<ForecastGpu> gpu;  // use_gpu()
};

// For a shape without files: sizes, checksums and a guess at the tokenizer go into the plan.
ForecastRequest forecast_request(const ModelConfig& config, const StoredBits& bits);

// Puts matrices and experts into that GPU's memory, 0: all of it less a margin, and what it shares with
// the host into the plan. Refuses what the engine would refuse.
Result<void> use_gpu(const GpuCard& card, uint64_t vram_bytes, TrunkOnGpu trunk,
                     ForecastRequest& request);

struct Forecast {
  MemoryPlan plan;
  TokenCost token;  // at half of the context
  PromptCost prompt;
  // Predicted tokens per second with one thing more; today's is token.overlapped_tps().
  double with_memory_tps = 0;     // 1 GiB of memory
  double with_flash_tps = 0;      // 1 GB/s of flash
  double with_bandwidth_tps = 0;  // 10 GB/s of memory bandwidth (and of products)
  int64_t gpu_slots = 0;
  int64_t gpu_matrices = 0,
          gpu_matrices_max = 0;  // that every token needs: there, and that could be
  double without_gpu_tps = 0;    // 0: there is none
};
Result<Forecast> make_forecast(const ForecastRequest& request);

struct ForecastRow {
  double x = 0;  // GiB of the budget or of a GPU's memory, bits or experts per token
  Forecast forecast;
};
// From the smallest workable budget to the one that holds every expert; `steps` >= 2 rows.
std::vector<ForecastRow> over_budgets(const ForecastRequest& request, int steps);
// 16, 8.5, 4.5, 3.5 and 2.5 bits per weight of an expert; what does not fit is left out.
std::vector<ForecastRow> over_bits(const ForecastRequest& request);
// Of the GPU's memory: none, then up to what every expert takes or the card has.
std::vector<ForecastRow> over_vram(const ForecastRequest& request, int steps);
// From all that were trained down to one; fewer are another model.
std::vector<ForecastRow> over_experts(const ForecastRequest& request);

Json to_json(const Forecast& forecast);
// One forecast as lines for a person: terms, speeds, what would help.
std::string to_text(const Forecast& forecast, const ForecastRequest& request);
// Rows under a heading `x_name`.
std::string to_table(const std::vector<ForecastRow>& rows, const std::string& x_name);

}  // namespace penstock
