// Experts and resident matrices in the memory of a GPU: what a caller asks for, and what came of it.
//
// Threads  plain data
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "gpu/gpu_backend.h"
#include "gpu/gpu_faults.h"
#include "store/expert_usage.h"

namespace penstock {

// Whether the matrices that every token needs lie there as well, before any expert. By itself where the
// GPU has memory of its own: elsewhere a copy is memory that experts lose, and no faster to read.
enum class TrunkOnGpu : uint8_t { kAuto, kOn, kOff };

constexpr bool takes_trunk(TrunkOnGpu trunk, bool is_unified) {
  return trunk == TrunkOnGpu::kOn || (trunk == TrunkOnGpu::kAuto && !is_unified);
}

// A matrix of fewer bytes stays with the processors: to ask a card takes about as long as they take to
// read so much of their memory. Of a shared expert all three together.
inline constexpr uint64_t kTrunkMatrixLeast = uint64_t{4} << 20;

// Calls of more tokens (chunks of prompts) are whose SideRule says, as far as what they need is in RAM as
// well: there a product takes a device's time for each row, and the processors' once for all (docs/gpu.md).
inline constexpr int64_t kGpuFewTokens = 8;

struct GpuOptions {
  std::string device;  // empty, "off": none; "auto": the best; part of a name, or a number
  uint64_t vram_bytes =
      0;  // of its memory, for all that is put there; 0: what is free, less a margin
  TrunkOnGpu trunk = TrunkOnGpu::kAuto;
  SideRule prompts = SideRule::kCheaper;  // who computes calls of many tokens

  // For tests and experiments.
  int64_t num_slots = 0;               // 0: all that fit
  int64_t promotions_max = -1;         // of one call; negative: all for free slots, then a quarter
  bool keeps_best = true;              // false: what comes replaces anybody
  std::function<bool(ExpertId)> uses;  // whether it computes one that it has; empty: always
  bool takes_guests = true;            // experts from RAM, for the call of many tokens alone
  bool waits_for_blocks = false;       // of RAM that it reaches, before calls
  int64_t few_tokens = kGpuFewTokens;
  uint64_t trunk_matrix_least = kTrunkMatrixLeast;
  DeltaNetSums delta_net_sums = DeltaNetSums::kOwn;
  int64_t attention_work_least = -1;                         // negative: as it is worth it
  std::function<bool(const std::string& name)> trunk_takes;  // a resident tensor; empty: any
  int64_t probe_inputs = 0;                                  // 0: as at any start
  bool validate = false;
  GpuFaults faults;

  bool is_on() const { return !device.empty() && device != "off"; }
  bool is_auto() const { return device == "auto"; }
};

struct GpuReport {
  std::string name;
  bool is_lost = false;
  uint64_t vram_bytes = 0;  // the budget
  uint64_t used_bytes = 0;  // of it, from the start to the end
  int64_t num_slots = 0;
  int64_t num_experts = 0;  // that it could compute
  uint64_t experts = 0;     // computed, over all calls
  uint64_t promotions = 0;  // copied there
  uint64_t demotions = 0;   // of these, in place of another
  uint64_t guests = 0;      // computed there for one call, from a copy that may be gone since
  uint64_t bytes_copied = 0;
  // Of what stays with the processors because of its type: "Q3_K", "bf16".
  std::vector<std::string> expert_types_left = {}, trunk_types_left = {};
  int64_t num_kernels = 0;  // compiled for it
  GpuTrunkReport trunk;     // zeros: all of it is computed by the processors
  int64_t trunk_fit = 0;    // matrices that could lie there, in as much memory as it takes
};

}  // namespace penstock
