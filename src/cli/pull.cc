// pull: a model from a hub into the cache, and with --pack a penstock model made of it.

#include "hub/pull.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/byte_text.h"
#include "cli/folders.h"
#include "cli/hub_access.h"
#include "cli/packing.h"
#include "cli/program.h"
#include "cli/progress.h"
#include "cli/pull_shards.h"
#include "pack/workspace.h"

namespace penstock {
namespace {

Result<PullRequest> pull_request(const Call& call) {
  const Settings& settings = call.settings;
  PullRequest request;
  request.name = PENSTOCK_TRY(parse_hub_name(call.argument(0)));
  request.revision = settings.text("revision");
  request.include = settings.text("include");
  request.parallel = static_cast<size_t>(settings.integer("connections"));
  request.piece_bytes = settings.bytes("piece-bytes");
  return request;
}

// Of the bytes of a checkpoint, at least, before anybody has read how it is coded: experts that are
// coded keep their bits and floats get four, unless --experts says how many. `pack` counts exactly.
double packed_share(const Settings& settings, const HubName& name) {
  constexpr double kFloatBits = 16;
  const std::string& experts = settings.text("experts");
  if (experts == "keep") return 1;
  if (!settings.is_given("experts") && !name.quant.empty()) return 1;
  double bits = 4;
  std::from_chars(experts.data(), experts.data() + experts.size(), bits);
  return std::min(bits, kFloatBits) / kFloatBits;
}

Result<void> refuse_packing_flags(const Settings& settings) {
  for (const char* flag : {"experts", "experts-down", "resident", "quantiser", "without-prediction",
                           "force", "verify", "shard-by-shard"}) {
    if (settings.get(flag).origin != Origin::kFlag) continue;
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("--{} is for packing what was pulled: --pack TARGET says where", flag)};
  }
  return {};
}

// What can be known to be wrong with --pack is told before anything is downloaded.
Result<void> plan_packing(const Call& call, PullRequest& request) {
  const Settings& settings = call.settings;
  if (!settings.is_given("pack")) return refuse_packing_flags(settings);
  PENSTOCK_TRY(check_packing_flags(settings));
  if (!request.include.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "--pack is for whole models: not with --include, which chooses files"};
  }
  const std::string target = PENSTOCK_TRY(target_folder(call.storage, settings.text("pack")));
  if (settings.is_on("shard-by-shard") && is_complete(call, request, target)) return {};
  PENSTOCK_TRY(Workspace::check_target(call.storage, target, settings.is_on("force")));
  if (settings.is_on("force") && settings.is_on("shard-by-shard")) {
    return Error{ErrorCode::kInvalidArgument,
                 "--shard-by-shard replaces nothing and has to know the room: not with --force; "
                 "move what is at TARGET away"};
  }
  if (settings.is_on("force")) return {};           // also without room for it
  if (settings.is_on("shard-by-shard")) return {};  // looks for room of its own
  request.made_of_it = {.folder = PENSTOCK_TRY(place_for(call.storage, target)),
                        .share = packed_share(settings, request.name)};
  return {};
}

Result<PullReport> pull(Call& call, const HubCache& cache, const PullRequest& request) {
  if (is_offline(call.settings, call.environment)) return pull_offline(cache, request);
  const HubOptions http = PENSTOCK_TRY(hub_options(call.environment, call.storage));
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  Progress progress(call.terminal, "pulling", Progress::Unit::kBytes);
  const PullEvents events{
      .on_progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); },
      .on_note =
          [&](const std::string& sentence) {
            progress.finish();
            call.terminal.warning(sentence);
          }};
  Result<PullReport> report = pull_model(cache, http, request, events, call.interrupt.token());
  progress.finish();
  if (!report && report.error().code == ErrorCode::kCancelled) {
    return Error{ErrorCode::kCancelled,
                 "stopped; the same command goes on where it was, with what is there"};
  }
  return report;
}

// What to type for the model: its name where that leads to it, else its path.
std::string name_to_type(const HubCache& cache, const PullReport& report) {
  const Result<std::string> found = find_pulled(cache, report.name);
  const bool leads_there = found && *found == report.model && parse_hub_name(report.name.text());
  return leads_there ? report.name.text() : report.model;
}

void print_report(Call& call, const HubCache& cache, const PullReport& report) {
  if (call.json()) {
    call.output.write_line(
        Json{{"name", report.name.text()},
             {"repo", report.name.repo_id()},
             {"quant", report.name.quant.empty() ? Json() : Json(report.name.quant)},
             {"commit", report.commit},
             {"snapshot", report.snapshot},
             {"model", report.model.empty() ? Json() : Json(report.model)},
             {"files", report.num_files},
             {"bytes", report.bytes},
             {"downloaded_bytes", report.bytes - report.bytes_here}});
    return;
  }
  const std::string here = report.bytes_here == 0 ? ""
                                                  : fmt::format(", {} of it there before",
                                                                format_bytes(report.bytes_here));
  call.output.write(table_text(fmt::format("{}: {} files, {}{}; commit {}\n", report.name.text(),
                                           report.num_files, format_bytes(report.bytes), here,
                                           report.commit.substr(0, 12))));
  if (report.model.empty()) {
    call.output.write(table_text(fmt::format("in {}\n", report.snapshot)));
  } else if (!call.settings.is_given("pack")) {
    call.output.write(
        table_text(fmt::format("next: penstock chat {}\n", name_to_type(cache, report))));
  }
}

}  // namespace

Result<int> pull_verb(Call& call) {
  PullRequest request = PENSTOCK_TRY(pull_request(call));
  PENSTOCK_TRY(plan_packing(call, request));
  if (call.settings.is_on("shard-by-shard")) {
    const std::string target =
        PENSTOCK_TRY(target_folder(call.storage, call.settings.text("pack")));
    const bool done = is_complete(call, request, target);
    return done ? clear_up_shards(call, request, target) : pull_shards(call, request, target);
  }
  const HubCache cache = PENSTOCK_TRY(hub_cache(call.settings, call.environment, call.storage));
  const PullReport report = PENSTOCK_TRY(pull(call, cache, request));
  print_report(call, cache, report);
  if (!call.settings.is_given("pack")) return kExitDone;
  call.interrupt.set_policy(Interrupt::Policy::kStop);
  return pack_checkpoint(call, {.source = report.model, .target = call.settings.text("pack")});
}

}  // namespace penstock
