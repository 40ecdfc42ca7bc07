// pack: from a checkpoint to a penstock model; and the check of one.

#include "pack/pack.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/byte_text.h"
#include "cli/calibrate.h"
#include "cli/consent.h"
#include "cli/folders.h"
#include "cli/loading.h"
#include "cli/packing.h"
#include "cli/program.h"
#include "cli/progress.h"
#include "engine/verify_source.h"
#include "format/text.h"
#include "host/processors.h"
#include "pack/replace_texts.h"
#include "pack/shrinking_source.h"
#include "pack/verify.h"
#include "pack/workspace.h"

namespace penstock {
namespace {

// Not by pull: the text is read by a model that is run, with the flags of one.
bool is_calibrated(const Settings& settings) {
  return settings.verb() == Verb::kPack && settings.is_given("calibrate");
}
// Nor this: how large the experts will be has to be known before they are downloaded.
bool is_planned(const Settings& settings) {
  return settings.verb() == Verb::kPack && settings.is_given("target-bytes");
}

// Nor this: what is pulled is shared with other programs.
bool is_in_place(const Settings& settings) {
  return settings.verb() == Verb::kPack && settings.is_on("in-place");
}

// The same whatever the working directory is: a run that goes on finds its files by it.
std::string full_path(const std::string& path) {
  std::string full = std::filesystem::absolute(path).lexically_normal();
  while (full.size() > 1 && full.ends_with('/')) full.pop_back();
  return full;
}

// At 4 bits a search loses as much as rounding, and takes ten times as long.
Quantiser quantiser_for(const Settings& settings, const PackOptions& options) {
  const std::optional<Quantiser> told = parse_quantiser(settings.text("quantiser"));
  if (told) return *told;
  const auto is_coarse = [](std::optional<DType> dtype) {
    return dtype == DType::kQ2 || dtype == DType::kQ3;
  };
  const bool is_searched = options.target_bytes || is_calibrated(settings) ||
                           is_coarse(options.experts) || is_coarse(options.down);
  return is_searched ? Quantiser::kSearch : Quantiser::kRound;
}

Result<PackOptions> pack_options(const Call& call, const PackPaths& paths) {
  const Settings& settings = call.settings;
  PENSTOCK_TRY(check_packing_flags(settings));
  PackOptions options;
  options.source = is_in_place(settings) ? full_path(paths.source) : paths.source;
  options.target = PENSTOCK_TRY(target_folder(call.storage, paths.target));
  options.experts = quantised_dtype(settings.text("experts"));
  options.down = quantised_dtype(settings.text("experts-down"));
  options.is_usual = !settings.is_given("experts") && !options.down;
  if (is_planned(settings)) {
    options.target_bytes = settings.bytes("target-bytes");
    options.is_usual = false;
  }
  options.resident = quantised_form(settings.text("resident"));
  options.quantiser = quantiser_for(settings, options);
  options.without_prediction = settings.is_on("without-prediction");
  options.force = settings.is_on("force");
  const auto threads = static_cast<int>(settings.integer("threads"));
  options.num_threads = threads > 0 ? threads : usable_processors().count;
  return options;
}

// Checks a checkpoint that is run in place, as verify_packed() a packed model.
Result<int> verify_in_place(Call& call, const std::string& model, const std::stop_token& stop) {
  Progress progress(call.terminal, "verifying", Progress::Unit::kBytes);
  const std::string sums = checksum_file_of(call, model);
  const SourceReport report = PENSTOCK_TRY(verify_source(
      call.storage, model, sums,
      [&](uint64_t done, uint64_t total) { progress.update(done, total); }, stop));
  progress.finish();
  if (!report.note.empty()) call.terminal.warning(report.note);
  if (sums.empty()) call.terminal.warning("there is no place to keep checksums: set HOME");
  for (const std::string& fault : report.faults) call.terminal.error(fault);
  if (call.json()) {
    call.output.write_line(Json{{"model", model},
                                {"bytes", report.bytes},
                                {"compared", report.compared},
                                {"learned", report.learned},
                                {"num_faults", report.num_faults},
                                {"faults", report.faults}});
  } else if (report.num_faults == 0) {
    call.output.write(fmt::format(
        "{}: all {} can be read; {} parts of experts are as at their first read, {} were read for "
        "the first time\n",
        model, format_bytes(report.bytes), report.compared, report.learned));
  }
  if (report.num_faults == 0) return kExitDone;
  call.terminal.error(fmt::format("{}: {} faults; fetch the file again", model, report.num_faults));
  return exit_code_of(ErrorCode::kCorrupt);
}

// Takes over the texts of a folder, once they are known to be of use.
Result<int> replace(Call& call) {
  const std::string& folder = call.argument(0);
  const std::string& model = call.argument(1);
  for (const std::string& note : PENSTOCK_TRY(judge_replacement(call.storage, folder, model))) {
    call.terminal.warning(note);
  }
  const ReplacedTexts replaced = PENSTOCK_TRY(replace_texts(call.storage, folder, model));
  if (call.json()) {
    call.output.write_line(
        Json{{"target", model}, {"id", replaced.id}, {"replaced", replaced.names}});
  } else if (replaced.names.empty()) {
    call.output.write(fmt::format("{}: has these texts already; id {}\n", model, replaced.id));
  } else {
    call.output.write(fmt::format("{}: {} from {}; id {}\n", model, fmt::join(replaced.names, ", "),
                                  folder, replaced.id));
  }
  return kExitDone;
}

Result<PackReport> pack(Call& call, const PackOptions& options, std::stop_token stop) {
  Progress progress(call.terminal, "packing", Progress::Unit::kBytes);
  const auto on_progress = [&](const PackProgress& now) {
    if (!now.note.empty()) {
      progress.finish();
      call.terminal.note(now.note);
    }
    progress.set_label(fmt::format("packing {}", name_of(now.stage)));
    progress.update(now.bytes_done, now.bytes_total);
  };
  return pack_model(call.storage, options, on_progress, std::move(stop));
}

void print_report(Call& call, const PackOptions& options, const PackReport& report,
                  const std::optional<BitPlan>& plan) {
  if (call.json()) {
    Json json{{"target", options.target},
              {"id", report.id},
              {"resident_bytes", report.resident_bytes},
              {"experts_bytes", report.experts_bytes},
              {"resumed_bytes", report.resumed_bytes},
              {"source_bytes_read", report.source_bytes_read}};
    if (is_in_place(call.settings)) {
      uint64_t bytes = 0;
      json["removed"] = Json::array();
      for (const InPlaceFacts::File& file : report.removed) {
        json["removed"].push_back(file.path);
        bytes += file.bytes;
      }
      json["removed_bytes"] = bytes;
    }
    if (plan) json["plan"] = to_json(*plan);
    call.output.write_line(json);
    return;
  }
  call.output.write(fmt::format("{}: {} of experts, {} that every token needs; id {}\n",
                                options.target, format_bytes(report.experts_bytes),
                                format_bytes(report.resident_bytes), report.id));
}

// Before a byte is written: what `run` would find out about the texts after hours of packing.
Result<void> judge_source(Call& call, const PackOptions& options) {
  // It was judged when it was begun, and is not whole any more.
  const bool was_begun = is_in_place(call.settings) &&
                         call.storage.stat(source_record_path(options.target)).has_value();
  if (was_begun) return {};
  for (const std::string& note : PENSTOCK_TRY(judge_folder(call.storage, options.source))) {
    call.terminal.warning(note);
  }
  return {};
}

}  // namespace

Result<void> check_packing_flags(const Settings& settings) {
  if (settings.verb() == Verb::kPack && settings.is_on("yes") && !settings.is_on("in-place")) {
    return Error{ErrorCode::kInvalidArgument,
                 "--yes agrees to what --in-place removes: not without it"};
  }
  if (quantised_dtype(settings.text("experts-down")) &&
      !quantised_dtype(settings.text("experts"))) {
    return Error{ErrorCode::kInvalidArgument,
                 "--experts-down is for experts that are quantised: --experts says as what"};
  }
  if (!is_planned(settings)) return {};
  for (const char* other : {"experts", "experts-down"}) {
    if (!settings.is_given(other)) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--target-bytes chooses the bits of experts: not with --{}", other)};
  }
  return {};
}

Result<int> verify_packed(Call& call, const std::string& model, std::stop_token stop) {
  Progress progress(call.terminal, "verifying", Progress::Unit::kBytes);
  const VerifyReport report = PENSTOCK_TRY(verify_model(
      call.storage, model, [&](uint64_t done, uint64_t total) { progress.update(done, total); },
      std::move(stop)));
  progress.finish();
  for (const std::string& fault : report.faults) call.terminal.error(fault);
  if (call.json()) {
    call.output.write_line(Json{{"model", model},
                                {"bytes", report.bytes},
                                {"num_faults", report.num_faults},
                                {"faults", report.faults}});
  } else if (report.num_faults == 0) {
    call.output.write(
        fmt::format("{}: all {} are as they were packed\n", model, format_bytes(report.bytes)));
  }
  if (report.num_faults == 0) return kExitDone;
  call.terminal.error(fmt::format("{}: {} faults; pack it again", model, report.num_faults));
  return exit_code_of(ErrorCode::kCorrupt);
}

Result<int> pack_checkpoint(Call& call, const PackPaths& paths,
                            std::optional<ArrivingFiles> arriving) {
  const std::stop_token stop = call.interrupt.token();
  PackOptions options = PENSTOCK_TRY(pack_options(call, paths));
  options.arriving = std::move(arriving);
  if (is_in_place(call.settings)) {
    options.in_place = [&](const InPlaceFacts& facts) {
      return consent_in_place(call, options.source, facts);
    };
  }
  // A source that was consumed is not whole: what it became is told first.
  const bool is_left = call.storage.stat(source_record_path(options.target)).has_value();
  if (is_in_place(call.settings) && !is_left) {
    PENSTOCK_TRY(Workspace::check_target(call.storage, options.target, options.force));
  }
  PENSTOCK_TRY(judge_source(call, options));
  if (is_calibrated(call.settings)) {
    if (!options.experts || options.quantiser == Quantiser::kRound) {
      return Error{
          ErrorCode::kInvalidArgument,
          "--calibrate is for experts whose codes are searched: not with --experts keep or "
          "--quantiser round"};
    }
    options.calibrate = [&] { return calibrate(call, options.target + ".calibration"); };
  }
  options.on_note = [&](const std::string& note) { call.terminal.warning(note); };
  std::optional<BitPlan> plan;
  Progress measuring(call.terminal, "measuring what experts lose", Progress::Unit::kItems);
  options.on_survey = [&](uint64_t done, uint64_t total) { measuring.update(done, total); };
  options.on_plan = [&](const BitPlan& made) {
    measuring.finish();
    plan = made;
    if (!call.json()) call.output.write(to_table(made));
  };
  const PackReport report = PENSTOCK_TRY(pack(call, options, stop));
  for (const std::string& key : report.unknown_keys) {
    call.terminal.detail("config.json: " + escaped(key) + " is not understood and changed nothing");
  }
  print_report(call, options, report, plan);
  return call.settings.is_on("verify") ? verify_packed(call, options.target, stop) : kExitDone;
}

Result<int> pack_verb(Call& call) {
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  const std::stop_token stop = call.interrupt.token();
  const bool wants_verify = call.settings.is_on("verify");
  const bool packs = call.settings.arguments().size() == 2 && !call.settings.is_on("texts");
  if (is_in_place(call.settings) && !packs) {
    return Error{ErrorCode::kInvalidArgument,
                 "--in-place is for packing SOURCE to TARGET: not with --texts or one MODEL"};
  }
  if (call.settings.arguments().size() == 1) {
    if (wants_verify && !call.settings.is_on("texts")) {
      const std::string& model = call.argument(0);
      const bool in_place = PENSTOCK_TRY(is_checkpoint(call.storage, model));
      return in_place ? verify_in_place(call, model, stop) : verify_packed(call, model, stop);
    }
    return Error{ErrorCode::kInvalidArgument,
                 "pack needs SOURCE and TARGET, or --verify and a model; see `penstock help pack`"};
  }
  if (call.settings.is_on("texts")) {
    const int code = PENSTOCK_TRY(replace(call));
    return wants_verify ? verify_packed(call, call.argument(1), stop) : code;
  }
  return pack_checkpoint(call, {.source = call.argument(0), .target = call.argument(1)});
}

}  // namespace penstock
