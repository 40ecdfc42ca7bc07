// config show: every setting of every verb with its value and where the value comes from.
// config knobs: cli/knobs.h.

#include <fmt/format.h>

#include "cli/knobs.h"
#include "cli/program.h"

namespace penstock {
namespace {

std::string value_text(const Setting& setting) {
  return setting.text.empty() ? "-" : setting.text;
}

std::string place_text(const Option& option, const Setting& setting) {
  const bool from_model = option.group == "Sampling" && setting.origin == Origin::kBuiltIn;
  return from_model ? "the model's generation_config.json, else built-in" : setting.place;
}

// A verb's settings as these flags, this environment and this file would give them. The same name
// can take other values at another verb: a flag counts for the verbs that take it.
// What is wrong with one of them is told, and the rest shown without the place it comes from.
Result<Settings> settings_of(const Call& call, Verb verb) {
  CommandLine line{verb, {}, {}};
  for (const auto& [name, text] : call.line.flags) {
    const Option* option = find_option(verb, name);
    if (option != nullptr && check_value(*option, text)) line.flags[name] = text;
  }
  Result<Settings> settings = Settings::resolve(line, call.environment, call.config_file);
  if (settings) return settings;
  call.terminal.warning(fmt::format("[{}] {}", text_of(verb).name, settings.error().message));
  settings = Settings::resolve(line, call.environment, {});
  return settings ? settings : Settings::resolve(line, Environment({}), {});
}

// A flag that no verb would take.
Result<void> check_flags(const Call& call) {
  for (const auto& [name, text] : call.line.flags) {
    std::optional<Error> refusal;
    for (const VerbText& verb : all_verbs()) {
      const Option* option = find_option(verb.verb, name);
      if (option == nullptr) continue;
      const Result<void> checked = check_value(*option, text);
      if (checked) {
        refusal.reset();
        break;
      }
      refusal = checked.error().with_context("--" + name);
    }
    if (refusal) return *refusal;
  }
  return {};
}

Result<Json> settings_json(const Call& call) {
  Json verbs = Json::object();
  for (const VerbText& verb : all_verbs()) {
    const Settings settings = PENSTOCK_TRY(settings_of(call, verb.verb));
    Json rows = Json::object();
    for (const Option& option : all_options()) {
      if ((option.verbs & bit(verb.verb)) == 0 || option.per_call) continue;
      const Setting& setting = settings.get(option.name);
      rows[std::string(option.name)] =
          Json{{"value", setting.text}, {"origin", place_text(option, setting)}};
    }
    verbs[std::string(verb.name)] = std::move(rows);
  }
  return Json{{"config_file", call.config_file.path}, {"verbs", std::move(verbs)}};
}

Result<std::string> settings_table(const Call& call) {
  std::string out = fmt::format("configuration file: {}\n",
                                call.config_file.path.empty() ? "none" : call.config_file.path);
  for (const VerbText& verb : all_verbs()) {
    const Settings settings = PENSTOCK_TRY(settings_of(call, verb.verb));
    out += fmt::format("\n[{}]\n", verb.name);
    for (const Option& option : all_options()) {
      const bool listed = (option.verbs & bit(verb.verb)) != 0 && !option.per_call;
      if (!listed || (option.hidden && !call.terminal.is_verbose())) continue;
      const Setting& setting = settings.get(option.name);
      out += fmt::format("  {:<20} {:<12} {}\n", option.name, value_text(setting),
                         place_text(option, setting));
    }
  }
  return out;
}

}  // namespace

Result<int> config_verb(Call& call) {
  if (call.argument(0) == "knobs") {
    show_knobs(call);
    return kExitDone;
  }
  if (call.argument(0) != "show") {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("\"{}\" is not something config does; write penstock config show, or "
                             "penstock config knobs",
                             call.argument(0))};
  }
  PENSTOCK_TRY(check_flags(call));
  if (call.json()) {
    call.output.write_line(PENSTOCK_TRY(settings_json(call)));
  } else {
    call.output.write(PENSTOCK_TRY(settings_table(call)));
  }
  return kExitDone;
}

}  // namespace penstock
