// GPUs for forecasts: what `doctor` measured here, what data sheets say, or what a person gives.
//
//   find_gpu_card("4090", measured)                      by a part of its name
//   find_gpu_card("memory=24G,gbps=900,link=26", {})     one that nobody has listed
//
// A data sheet has peaks; what programs see of them is taken to be what one H100 showed (docs/gpu.md):
// 87 % of the rate of its memory, 73 % of the link's. Also from that card: how long its kernels take to
// begin and end, and what the engine spends on a call besides. A card that doctor measured has its own.
//
// Units   GB/s are powers of ten, sizes powers of two
// Source  manufacturers' product pages and data sheets: memory, its bandwidth, generation and lanes of
//         the link
// Errors  find_gpu_card(): kInvalidArgument with the names that are known
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "survey/cost_model.h"

namespace penstock {

struct GpuCard {
  std::string name;
  uint64_t memory_bytes = 0;
  bool is_unified = false;  // its memory is the machine's
  double read_gbps = 0;     // of a kernel that only reads
  double link_gbps = 0;     // copies to it
  double round_trip_us = 0;
  double dispatch_us = 0;   // of one more dispatch
  double experts_gbps = 0;  // experts of the 397B shape in q4, a layer at a time; 0: not measured
  std::string origin;       // "data sheet", "measured here", "as given"
};

// Of several the one that an engine takes: of its own memory before others, then the largest. nullptr of none.
const GpuCard* best_gpu(const std::vector<GpuCard>& cards);

// Measured ones before those of data sheets; "auto" is the best measured one, a number counts these.
Result<GpuCard> find_gpu_card(const std::string& text, const std::vector<GpuCard>& measured);

// For experts of this type; read_gbps is 0 where devices do not compute it.
DeviceRates device_rates(const GpuCard& card, DType experts);

}  // namespace penstock
