#include "cli/knobs.h"

#include <fmt/format.h>

#include "cli/kept_profile.h"
#include "engine/knobs.h"

namespace penstock {
namespace {

struct KeptKnobs {
  std::vector<KnobSetting> settings;
  std::string path;  // of the profile
};

KeptKnobs kept_knobs(const Call& call) {
  const std::string path = own_profile_path(call);
  const Result<std::optional<KeptProfile>> found = kept_profile(call, path);
  if (!found) {
    call.terminal.warning(
        fmt::format("the knobs of this machine's profile are not used: {}", found.error().message));
    return {};
  }
  if (!*found || (*found)->profile.knobs.empty()) return {};
  const KeptProfile& own = **found;
  if (!own.differences.empty()) {
    call.terminal.warning(
        fmt::format("the knobs of {} are not used: they were found on another machine ({})", path,
                    own.differences[0]));
    return {};
  }
  KeptKnobs kept = {.settings = {}, .path = path};
  for (const KnobSetting& setting : own.profile.knobs) {
    if (const Result<void> checked = check_knob(setting)) {
      kept.settings.push_back(setting);
    } else {
      call.terminal.warning(
          fmt::format("a knob of {} is not used: {}", path, checked.error().message));
    }
  }
  return kept;
}

}  // namespace

Result<void> apply_knobs(const Call& call, EngineOptions& options) {
  for (const KnobSetting& setting : kept_knobs(call).settings) {
    PENSTOCK_TRY(set_knob(options, setting));
  }
  if (!call.settings.is_given("knob")) return {};
  const Result<std::vector<KnobSetting>> given = parse_knobs(call.settings.text("knob"));
  if (!given) return given.error().with_context("--knob");
  for (const KnobSetting& setting : *given) PENSTOCK_TRY(set_knob(options, setting));
  return {};
}

void show_knobs(const Call& call) {
  const KeptKnobs kept = kept_knobs(call);
  Json list = Json::array();
  std::string table = fmt::format("{:<22} {:>8} {:>8} {:>6} {:>6} {:<8} {}\n", "knob", "value",
                                  "built-in", "low", "high", "term", "from");
  for (const Knob& knob : all_knobs()) {
    const int64_t built_in = built_in_value(knob);
    int64_t value = built_in;
    std::string origin = "built-in";
    for (const KnobSetting& setting : kept.settings) {
      if (setting.name == knob.name) value = setting.value, origin = kept.path;
    }
    list.push_back(Json{{"name", knob.name},
                        {"value", value},
                        {"built_in", built_in},
                        {"low", knob.low},
                        {"high", knob.high},
                        {"term", knob.term},
                        {"help", knob.help},
                        {"origin", origin}});
    table += fmt::format("{:<22} {:>8} {:>8} {:>6} {:>6} {:<8} {}\n  {}\n", knob.name, value,
                         built_in, knob.low, knob.high, knob.term, origin, knob.help);
  }
  if (call.json()) {
    call.output.write_line(Json{{"knobs", std::move(list)}});
  } else {
    call.output.write(table);
  }
}

}  // namespace penstock
