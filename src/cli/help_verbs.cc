// The verbs that only tell about penstock itself: help, version, completions.

#include <fmt/format.h>

#include "cli/help.h"
#include "cli/program.h"
#include "cli/suggest.h"
#include "compute/cpu/cpu_backend.h"
#include "format/manifest.h"

namespace penstock {
namespace {

Json verbs_json() {
  Json verbs = Json::array();
  for (const VerbText& verb : all_verbs()) {
    verbs.push_back(Json{{"name", verb.name}, {"summary", verb.summary}});
  }
  return verbs;
}

}  // namespace

Result<int> help_verb(Call& call) {
  const bool is_page = call.settings.is_on("man");
  if (is_page && call.settings.arguments().empty()) {
    call.output.write(manual_page(PENSTOCK_VERSION));
    return kExitDone;
  }
  if (call.settings.arguments().empty()) {
    if (call.json()) {
      call.output.write_line(Json{{"verbs", verbs_json()}});
    } else {
      call.output.write(program_help());
    }
    return kExitDone;
  }
  const VerbText* verb = find_verb(call.argument(0));
  if (verb == nullptr) {
    std::vector<std::string_view> names;
    for (const VerbText& known : all_verbs()) names.push_back(known.name);
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("there is no verb \"{}\"{}; see `penstock help`", call.argument(0),
                             suggestion(call.argument(0), names))};
  }
  if (is_page) {
    call.output.write(manual_page_of(*verb, PENSTOCK_VERSION));
  } else if (call.json()) {
    call.output.write_line(Json{{"name", verb->name}, {"help", verb_help(*verb)}});
  } else {
    call.output.write(verb_help(*verb));
  }
  return kExitDone;
}

Result<int> version_verb(Call& call) {
  if (!call.json()) {
    call.output.write("penstock " PENSTOCK_VERSION "\n");
    for (const std::string& target : CpuBackend::targets()) {
      if (call.terminal.is_verbose()) call.output.write(fmt::format("  {}\n", target));
    }
    return kExitDone;
  }
  call.output.write_line(Json{{"version", PENSTOCK_VERSION},
                              {"format_version", kFormatVersion},
                              {"compiler", __VERSION__},
                              {"simd_targets", CpuBackend::targets()}});
  return kExitDone;
}

Result<int> completions_verb(Call& call) {
  const auto script = completion_script(call.argument(0));
  if (!script) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("\"{}\" is not one of bash, zsh, fish", call.argument(0))};
  }
  if (call.json()) {
    call.output.write_line(Json{{"shell", call.argument(0)}, {"script", *script}});
  } else {
    call.output.write(*script);
  }
  return kExitDone;
}

}  // namespace penstock
