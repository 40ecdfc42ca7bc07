#include "cli/gpu_advice.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "cli/forecast.h"
#include "survey/gpu_gain.h"
#include "survey/machine_profile.h"

namespace penstock {
namespace {

// A driver has put a GPU there. Cheap, and no driver is loaded for it: Mesa's takes some 100 MiB.
bool machine_has_gpu() {
  std::error_code ignored;
  if (std::filesystem::exists("/dev/nvidiactl", ignored)) return true;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/dri", ignored)) {
    if (entry.path().filename().string().starts_with("render")) return true;
  }
  return false;
}

Result<std::optional<MachineProfile>> own_profile(Call& call) {
  const auto folder = call.environment.state_directory();
  if (!folder) return std::optional<MachineProfile>();
  Result<MachineProfile> profile = load_profile(call.storage, profile_in(*folder));
  if (profile) return std::optional(std::move(*profile));
  if (profile.error().code == ErrorCode::kNotFound) return std::optional<MachineProfile>();
  return profile.error();
}

struct Advice {
  std::optional<TrunkOnGpu> trunk;  // nothing: without a GPU
  std::string line;
};

Advice left_out(const GpuCard& card, const std::string& reason) {
  return {.trunk = std::nullopt, .line = fmt::format("{} is not used: {}", card.name, reason)};
}

Result<Advice> advise(Call& call, const EngineOptions& options, const MachineProfile& profile,
                      const GpuCard& card) {
  if (card.is_unified && options.gpu.vram_bytes == 0) {
    return left_out(card, "it uses this machine's own memory; --vram says how much it may have");
  }
  const ModelFiles files =
      PENSTOCK_TRY(open_model(call.storage, options.model, options.chat_template_file));
  const ResolvedOptions resolved = PENSTOCK_TRY(resolve_options(files, options));
  ModelForecast model = PENSTOCK_TRY(model_forecast(call, files, resolved.request));
  if (!model.gpu_computes) return left_out(card, "it computes no experts of this model's type");
  const auto rates = rates_of(profile, model.request.sizes.record_bytes, model.priced_as);
  if (!rates) return left_out(card, rates.error().message);
  model.request.rates = *rates;
  const Result<GpuGain> gain =
      gpu_gain(model.request, card, options.gpu.vram_bytes, options.gpu.trunk);
  // A budget that does not work is refused by whoever loads the model.
  if (!gain && gain.error().code == ErrorCode::kOutOfMemory) {
    return left_out(card, gain.error().message);
  }
  if (!gain) return gain.error();
  const std::string figures = fmt::format("forecast {:.1f} tok/s with it, {:.1f} without",
                                          gain->with_tps, gain->without_tps);
  if (!gain->pays()) {
    return left_out(card, figures + " (--gpu with its name uses it all the same)");
  }
  return Advice{.trunk = gain->trunk, .line = fmt::format("{} is used: {}", card.name, figures)};
}

}  // namespace

Result<void> settle_gpu(Call& call, EngineOptions& options) {
  const std::string& asked = call.settings.text("gpu");
  if (options.low_bits.is_on() && asked != "off" && asked != "auto") {
    call.terminal.warning(
        "no GPU is used: it computes the model's own experts alone, and none of the copy "
        "in fewer bits");
  }
  if (!options.gpu.is_auto()) return {};
  const bool is_asked = call.settings.is_given("gpu") || call.settings.is_given("vram");
  if (options.arithmetic != Arithmetic::kFixed16) {
    if (!is_asked) options.gpu.device = "off";  // otherwise the engine refuses the two together
    return {};
  }
  const auto profile = PENSTOCK_TRY(own_profile(call));
  const GpuCard* const card = profile ? best_gpu(profile->gpus) : nullptr;
  if (card == nullptr) {
    options.gpu.device = "off";
    const char* const line =
        "no GPU is used: none was measured here; `penstock doctor MODEL` does, and --gpu NAME "
        "needs "
        "no measurement";
    if (is_asked) {
      call.terminal.warning(line);
    } else if (machine_has_gpu()) {
      call.terminal.note(line);
    }
    return {};
  }
  const Advice advice = PENSTOCK_TRY(advise(call, options, *profile, *card));
  if (advice.trunk) {
    options.gpu.trunk = *advice.trunk;
  } else {
    options.gpu.device = "off";
  }
  call.terminal.note(advice.line);
  return {};
}

}  // namespace penstock
