// synth: a model of a published shape with random weights, for benchmarks without downloads.

#include "pack/synth.h"

#include <fmt/format.h>

#include "base/byte_text.h"
#include "cli/folders.h"
#include "cli/program.h"
#include "cli/progress.h"
#include "model/shapes.h"

namespace penstock {
namespace {

// "keep" is what published models are stored in.
DType dtype_of_bits(const std::string& bits) {
  return quantised_dtype(bits).value_or(DType::kBF16);
}

// 0: the shape's own number.
Result<void> set_num_experts(int64_t num_experts, ModelConfig& config) {
  if (num_experts == 0) return {};
  if (num_experts < config.num_experts_per_tok) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--num-experts: {} experts per layer, but every token takes {}",
                             num_experts, config.num_experts_per_tok)};
  }
  config.num_experts = num_experts;
  return {};
}

Result<SynthOptions> synth_options(const Call& call) {
  const Settings& settings = call.settings;
  const ModelShape shape = PENSTOCK_TRY(find_model_shape(call.argument(0)));
  SynthOptions options;
  options.target = PENSTOCK_TRY(target_folder(call.storage, call.argument(1)));
  options.name = shape.name;
  options.config = PENSTOCK_TRY(config_of(shape, settings.integer("layers")));
  options.config.mtp_num_hidden_layers = settings.is_on("mtp") ? 1 : 0;
  PENSTOCK_TRY(set_num_experts(settings.integer("num-experts"), options.config));
  options.experts = dtype_of_bits(settings.text("experts"));
  options.resident = dtype_of_bits(settings.text("resident"));
  options.seed = static_cast<uint64_t>(settings.integer("seed"));
  options.force = settings.is_on("force");
  return options;
}

}  // namespace

Result<int> synth_verb(Call& call) {
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  const std::stop_token stop = call.interrupt.token();
  const SynthOptions options = PENSTOCK_TRY(synth_options(call));
  Progress progress(call.terminal, "writing", Progress::Unit::kBytes);
  const auto on_progress = [&](const PackProgress& now) {
    if (!now.note.empty()) {
      progress.finish();
      call.terminal.note(now.note);
    }
    progress.set_label(fmt::format("writing {}", name_of(now.stage)));
    progress.update(now.bytes_done, now.bytes_total);
  };
  const PackReport report =
      PENSTOCK_TRY(synthesise_model(call.storage, options, on_progress, stop));
  progress.finish();
  if (call.json()) {
    call.output.write_line(Json{{"target", options.target},
                                {"shape", options.name},
                                {"layers", options.config.num_hidden_layers},
                                {"mtp_layers", options.config.mtp_num_hidden_layers},
                                {"id", report.id},
                                {"resident_bytes", report.resident_bytes},
                                {"experts_bytes", report.experts_bytes},
                                {"resumed_bytes", report.resumed_bytes}});
    return kExitDone;
  }
  call.output.write(fmt::format(
      "{}: the shape of {} with {} layers and random weights; {} of experts, {} that every token "
      "needs; id {}\n",
      options.target, options.name, options.config.num_hidden_layers,
      format_bytes(report.experts_bytes), format_bytes(report.resident_bytes), report.id));
  return kExitDone;
}

}  // namespace penstock
