// The GPUs of this machine as doctor tells them: who is there, whether they compute right, how fast.
//
// A machine without a loader of Vulkan, a driver that does not start, a device that computes wrong:
// none of it is an error here, it is what there is to tell. Rates are measured only of devices that
// `--gpu auto` might choose, since a software device is this machine's processors once more.
//
// Threads  the caller's
// Memory   at most 512 MiB of a device's and 64 MiB of the host's at a time
// Errors   kCancelled
#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "gpu/bit_probe.h"
#include "gpu/gpu_facts.h"
#include "gpu/gpu_rates.h"
#include "survey/gpu_card.h"

namespace penstock {

struct SurveyedGpu {
  GpuFacts facts;
  std::string trouble;            // why there is nothing below, or what came in between
  std::optional<BitProbe> probe;  // of a device that could be started
  std::optional<GpuRates> rates;
  std::optional<GpuExpertRate> experts;  // of the 397B shape's, by 4 bits
};

struct GpuSurvey {
  std::string absence;  // why there are none
  std::vector<SurveyedGpu> gpus;
};
Json to_json(const GpuSurvey& survey);

// Those whose rates were measured, for forecasts.
std::vector<GpuCard> measured_gpus(const GpuSurvey& survey);

// A few lines for people.
std::string gpu_table(const GpuSurvey& survey);

// `on_device` is told each device's name before it is examined; may be empty.
Result<GpuSurvey> survey_gpus(double point_s,
                              const std::function<void(const std::string&)>& on_device,
                              const std::stop_token& stop);

}  // namespace penstock
