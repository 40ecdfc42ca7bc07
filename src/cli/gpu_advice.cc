#include "cli/gpu_advice.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "cli/forecast.h"
#include "cli/kept_profile.h"
#include "survey/gpu_gain.h"

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

// Nothing: there is none of this machine. One that cannot be read is an error for whoever asked for a GPU; others
// have heard of it with its knobs (cli/knobs.h), and of one of another machine likewise.
Result<std::optional<MachineProfile>> own_profile(Call& call, bool is_asked) {
  Result<std::optional<KeptProfile>> kept = kept_profile(call, own_profile_path(call));
  if (!kept && is_asked) return kept.error();
  if (!kept || !*kept || !(*kept)->differences.empty()) return std::optional<MachineProfile>();
  return std::optional(std::move((*kept)->profile));
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
  if (!gain) {
    // What --vram asks and the card has not. A budget that does not work is refused by whoever loads the model.
    const bool is_refused =
        options.gpu.vram_bytes > 0 && gain.error().code == ErrorCode::kInvalidArgument;
    if (is_refused) return gain.error();
    return left_out(card, gain.error().message);
  }
  const std::string figures = fmt::format("forecast {:.1f} tok/s with it, {:.1f} without",
                                          gain->with_tps, gain->without_tps);
  if (!gain->pays()) {
    return left_out(card, figures + " (--gpu with its name uses it all the same)");
  }
  return Advice{.trunk = gain->trunk, .line = fmt::format("{} is used: {}", card.name, figures)};
}

}  // namespace

Result<void> settle_gpu(Call& call, EngineOptions& options) {
  if (options.low_bits.is_on()) {
    const std::string& named = call.settings.text("gpu");
    if (named != "off" && named != "auto") {
      call.terminal.warning(
          "no GPU is used: it computes the model's own experts alone, and none of the copy in "
          "fewer bits");
    }
  }
  if (!options.gpu.is_auto()) return {};
  // What stands in a file of settings is for the runs that can use it.
  const bool is_asked = call.settings.get("gpu").origin == Origin::kFlag ||
                        call.settings.get("vram").origin == Origin::kFlag;
  if (options.arithmetic != Arithmetic::kFixed16) {
    if (!is_asked) options.gpu.device = "off";  // otherwise the engine refuses the two together
    return {};
  }
  const auto profile = PENSTOCK_TRY(own_profile(call, is_asked));
  const GpuCard* const card = profile ? best_gpu(profile->gpus) : nullptr;
  if (card == nullptr) {
    options.gpu.device = "off";
    const char* const line =
        profile ? "no GPU is used: `penstock doctor` has found none here that it could measure"
                : "no GPU is used: none was measured here; `penstock doctor MODEL` does, and --gpu "
                  "NAME "
                  "needs no measurement";
    if (is_asked) {
      call.terminal.warning(line);
    } else if (!profile && machine_has_gpu()) {
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
