// Whether a GPU makes a model faster, by the forecast: with the matrices that every token needs in its memory,
// with experts alone, or not at all.
//
// Errors  those of use_gpu(): --vram that the card has not. kOutOfMemory: no forecast can be made without it
#pragma once

#include <cstdint>

#include "base/result.h"
#include "survey/forecast.h"

namespace penstock {

struct GpuGain {
  double with_tps = 0;  // 0: it has too little memory
  double without_tps = 0;
  TrunkOnGpu trunk = TrunkOnGpu::kAuto;  // the better way, or the only one that was asked for

  // A forecast is right within some per cent; for less nothing is put onto a card.
  bool pays() const { return with_tps > 0 && with_tps >= 1.05 * without_tps; }
};

// without: rates and a plan that have no GPU yet.
Result<GpuGain> gpu_gain(const ForecastRequest& without, const GpuCard& card, uint64_t vram_bytes,
                         TrunkOnGpu asked);

}  // namespace penstock
