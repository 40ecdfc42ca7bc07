// doctor: measures this machine, says what hurts, and keeps the rates for `plan`.

#include "survey/doctor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"
#include "cli/kept_profile.h"
#include "cli/loading.h"
#include "cli/program.h"
#include "engine/engine.h"
#include "io/output_file.h"
#include "model/shapes.h"
#include "survey/model_sizes.h"

namespace penstock {
namespace {

// Without a model: products at the shapes of a middling one, and no disk to measure.
constexpr std::string_view kShapeWithoutModel = "35b";

Result<DoctorOptions> doctor_options(Call& call) {
  DoctorOptions options;
  if (call.settings.arguments().empty()) {
    const ModelShape shape = PENSTOCK_TRY(find_model_shape(kShapeWithoutModel));
    options.config = PENSTOCK_TRY(config_of(shape, 0));
    options.dtype = DType::kQ4;
  } else {
    const ModelFiles model = PENSTOCK_TRY(open_model(call.storage, call.argument(0)));
    options.config = model.config;
    const auto layers = static_cast<int>(model.config.num_moe_layers());
    options.part_bytes = align_file(PENSTOCK_TRY(model.expert_sizes(layers)).part_bytes);
    options.experts_path = model.expert_paths().front();
    const std::optional<DType> own = model.experts_dtype();
    options.dtype = own.value_or(nearest_dtype(expert_bits(model.config, model_sizes(model))));
    if (!own) {
      call.terminal.note(fmt::format("products are measured in {}; those of {} are near them",
                                     name_of(options.dtype), model.experts_coding()));
    }
  }
  options.threads = static_cast<int>(call.settings.integer("threads"));
  options.reader.kind = reader_kind(call.settings.text("reader"));
  options.simd_target = call.settings.text("simd");
  options.sustained_s = 60 * call.settings.number("sustained");
  options.version = PENSTOCK_VERSION;
  return options;
}

std::string flash_table(const MachineProfile& profile) {
  if (profile.flash.empty()) return "disk: not measured; give a model to measure where it lies\n";
  std::string text = fmt::format("disk {} ({}), {}\n  {:>10} {:>6} {:>9} {:>9} {:>9} {:>9}\n",
                                 profile.disk.source, profile.disk.filesystem, profile.reader,
                                 "reads of", "depth", "", "GB/s", "p50 ms", "p99 ms");
  for (const FlashPoint& point : profile.flash) {
    text += fmt::format("  {:>10} {:>6} {:>9} {:>9.2f} {:>9.2f} {:>9.2f}\n",
                        format_bytes(point.read_bytes), point.depth,
                        point.is_direct ? "direct" : "buffered", point.gbps, point.p50_us / 1e3,
                        point.p99_us / 1e3);
  }
  if (profile.sustained_gbps > 0) {
    text +=
        fmt::format("  {:.2f} GB/s over {:.0f} s\n", profile.sustained_gbps, profile.sustained_s);
  }
  return text;
}

std::string report_text(const DoctorReport& report) {
  const MachineProfile& profile = report.profile;
  std::string text =
      fmt::format("{}, {} processors, {} of memory, {}\n", profile.machine.cpu_model,
                  profile.machine.processors, format_bytes(profile.machine.memory_bytes),
                  profile.machine.kernel);
  text += flash_table(profile);
  text += "memory\n";
  for (const MemoryPoint& point : profile.memory) {
    text += fmt::format("  {:>3} threads {:>9.1f} GB/s read {:>9.1f} GB/s copied\n", point.threads,
                        point.read_gbps, point.copy_gbps);
  }
  if (profile.pages.small_gbps > 0) {
    text += fmt::format("  {:>9.1f} GB/s from small pages, {:.1f} from the largest there are\n",
                        profile.pages.small_gbps, profile.pages.largest_gbps);
  }
  text += fmt::format("products, {}\n", profile.compute);
  for (const KernelPoint& point : profile.kernels) {
    text += fmt::format(
        "  {:>11} {:>9.1f} GB/s of weights for one token {:>9.1f} GFLOP/s for a "
        "prompt\n",
        point.dtype, point.token_gbps, point.prompt_gflops);
  }
  text += gpu_table(report.gpus);
  for (const Finding& finding : report.findings) {
    text += fmt::format("{}: {}{}{}\n", finding.is_warning ? "warning" : "note", finding.text,
                        finding.advice.empty() ? "" : "; ", finding.advice);
  }
  return text;
}

// Knobs are found by trial, not measured here: those of this machine stay.
std::vector<KnobSetting> knobs_kept_in(const Call& call, const std::string& path) {
  const Result<std::optional<KeptProfile>> before = kept_profile(call, path);
  if (!before) call.terminal.warning(before.error().message);
  if (!before || !*before || !(*before)->differences.empty()) return {};
  return (*before)->profile.knobs;
}

}  // namespace

Result<int> doctor_verb(Call& call) {
  const DoctorOptions options = PENSTOCK_TRY(doctor_options(call));
  if (call.settings.is_given("machine")) {
    PENSTOCK_TRY(check_output(call.storage, call.settings.text("machine")));
  }
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  DoctorReport report = PENSTOCK_TRY(examine(
      call.storage, options,
      [&](const std::string& what, int done, int total) {
        call.terminal.note(fmt::format("[{}/{}] {}", done + 1, total, what));
      },
      call.interrupt.token()));
  const std::string path = profile_path(call);
  report.profile.knobs = knobs_kept_in(call, path);
  // Rates without a disk are no use to `plan`, and must not replace those that have one.
  const bool is_kept = !path.empty() && !report.profile.flash.empty();
  if (is_kept) PENSTOCK_TRY(save_profile(call.storage, path, report.profile));
  if (call.json()) {
    Json json = to_json(report);
    json["kept_in"] = is_kept ? Json(path) : Json();
    call.output.write_line(json);
    return kExitDone;
  }
  call.output.write(report_text(report));
  if (is_kept) call.output.write(fmt::format("kept in {}\n", path));
  return kExitDone;
}

}  // namespace penstock
