#include "survey/gpu_gain.h"

#include <vector>

namespace penstock {
namespace {

std::vector<TrunkOnGpu> ways_of(const GpuCard& card, TrunkOnGpu asked) {
  if (asked != TrunkOnGpu::kAuto) return {asked};
  if (card.is_unified) return {TrunkOnGpu::kOff};
  return {TrunkOnGpu::kOn, TrunkOnGpu::kOff};
}

}  // namespace

Result<GpuGain> gpu_gain(const ForecastRequest& without, const GpuCard& card, uint64_t vram_bytes,
                         TrunkOnGpu asked) {
  GpuGain gain;
  gain.without_tps = PENSTOCK_TRY(make_forecast(without)).token.overlapped_tps();
  for (const TrunkOnGpu trunk : ways_of(card, asked)) {
    ForecastRequest beside = without;
    PENSTOCK_TRY(use_gpu(card, vram_bytes, trunk, beside));
    const Result<Forecast> forecast = make_forecast(beside);
    if (!forecast) continue;
    const double tps = forecast->token.overlapped_tps();
    if (tps <= gain.with_tps) continue;
    gain.with_tps = tps;
    gain.trunk = trunk;
  }
  return gain;
}

}  // namespace penstock
