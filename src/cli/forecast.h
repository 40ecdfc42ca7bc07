// What `plan` says beyond bytes: how fast, what binds, what would help. Also for models that are
// only a name: "would 397b run in 48G with a disk of 7 GB/s?"
//
// Errors  kInvalidArgument naming the flag; those of the model and of the plan
#pragma once

#include <optional>
#include <string>

#include "cli/program.h"
#include "engine/engine.h"
#include "survey/forecast.h"

namespace penstock {

// Said where experts are left out by --lossy-experts-by-layer or --lossy-expert-weight.
inline constexpr const char* kForecastOfAll =
    "the forecast is that of all experts that routers choose; without those left out it is faster";

// Said in place of a forecast.
inline constexpr const char* kNoForecastOfCopy =
    "there is no forecast with --lossy-low-bits-copy, whose reads it does not know; the memory is "
    "planned";

// The argument of `plan` is a shape's name and no folder.
bool names_a_shape(const Call& call);

// `plan SHAPE`: all of it.
Result<int> plan_shape(Call& call);

// What a forecast takes of a model's files; the rates are still to come.
struct ModelForecast {
  ForecastRequest request;
  DType priced_as = DType::kBF16;  // whose rates its experts' products are taken to have
  bool is_measured_type = true;    // false: their own type has none
  bool gpu_computes = false;       // whether a GPU can have experts of it
};
Result<ModelForecast> model_forecast(Call& call, const ModelFiles& files, const PlanRequest& plan);

// Nothing when no rates are known: neither flags nor a profile.
Result<std::optional<ForecastRequest>> forecast_of_model(Call& call, const ModelFiles& files,
                                                         const PlanRequest& plan);

// Prints the forecast and the table that --over asks for, and writes --svg and --html.
Result<void> print_forecast(Call& call, const ForecastRequest& request, const std::string& name);

// The same as JSON: {"forecast", "rates", "over"}; also writes the files.
Result<Json> forecast_json(Call& call, const ForecastRequest& request, const std::string& name);

}  // namespace penstock
