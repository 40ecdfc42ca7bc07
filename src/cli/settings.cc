#include "cli/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/byte_text.h"
#include "cli/suggest.h"
#include "io/storage.h"

namespace penstock {
namespace {

constexpr uint64_t kConfigBytesMax = 1 << 20;

// The name that test harnesses of vector code know.
constexpr char kForceTarget[] = "PENSTOCK_FORCE_TARGET";
constexpr char kConfigVariable[] = "PENSTOCK_CONFIG";
constexpr size_t kSettingShown = 60;

Setting from_environment(const Option& option, const Environment& environment) {
  const std::string name = environment_name(option);
  if (const auto value = environment.get(name)) return {*value, Origin::kEnvironment, name};
  if (option.name == "simd") {
    if (const auto value = environment.get(kForceTarget)) {
      return {*value, Origin::kEnvironment, kForceTarget};
    }
  }
  return {};
}

Setting find_setting(const Option& option, const CommandLine& line, const Environment& environment,
                     const ConfigFile& file) {
  const auto flag = line.flags.find(option.name);
  if (flag != line.flags.end()) {
    return {flag->second, Origin::kFlag, fmt::format("--{}", option.name)};
  }
  if (!option.per_call) {
    Setting setting = from_environment(option, environment);
    if (setting.origin == Origin::kEnvironment) return setting;
    if (const ConfigEntry* entry = file.find(text_of(line.verb).name, option.name)) {
      return {entry->value, Origin::kFile, fmt::format("{}:{}", file.path, entry->line)};
    }
  }
  return {std::string(option.fallback), Origin::kBuiltIn, "built-in"};
}

Result<void> check_setting(const Option& option, const Setting& setting) {
  if (setting.origin == Origin::kBuiltIn) return {};
  const Result<void> checked = check_value(option, setting.text);
  if (checked) return {};
  const bool named = setting.origin != Origin::kFile;
  return checked.error().with_context(named ? setting.place
                                            : fmt::format("{}: {}", setting.place, option.name));
}

}  // namespace

Result<Settings> Settings::resolve(const CommandLine& line, const Environment& environment,
                                   const ConfigFile& file) {
  Settings settings;
  settings.verb_ = line.verb;
  settings.arguments_ = line.arguments;
  for (const Option& option : all_options()) {
    if ((option.verbs & bit(line.verb)) == 0) continue;
    Setting setting = find_setting(option, line, environment, file);
    PENSTOCK_TRY(check_setting(option, setting));
    settings.settings_.emplace(option.name, std::move(setting));
  }
  return settings;
}

const Setting& Settings::get(std::string_view name) const {
  const auto found = settings_.find(name);
  PENSTOCK_CHECK(found != settings_.end());
  return found->second;
}

int64_t Settings::integer(std::string_view name) const {
  const std::string& value = text(name);
  int64_t number = 0;
  std::from_chars(value.data(), value.data() + value.size(), number);
  return number;
}

double Settings::number(std::string_view name) const {
  const std::string& value = text(name);
  double number = 0;
  std::from_chars(value.data(), value.data() + value.size(), number);
  return number;
}

uint64_t Settings::bytes(std::string_view name) const {
  const Result<uint64_t> bytes = parse_bytes(text(name));
  return bytes ? *bytes : 0;
}

std::vector<std::string> Settings::list(std::string_view name) const {
  const std::string& all = text(name);
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find(',', begin), all.size());
    if (end > begin) parts.push_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::vector<std::string> misspelt_variables(const Environment& environment) {
  std::vector<std::string> known{kForceTarget, kConfigVariable};
  std::map<std::string, std::string> of_calls;
  for (const Option& option : all_options()) {
    if (option.per_call) {
      of_calls.emplace(environment_name(option), option.name);
    } else {
      known.push_back(environment_name(option));
    }
  }
  const std::vector<std::string_view> words(known.begin(), known.end());
  std::vector<std::string> told;
  for (const auto& [name, value] : environment.variables()) {
    if (!name.starts_with("PENSTOCK_") || value.empty() || std::ranges::count(known, name) > 0) {
      continue;
    }
    const std::string shown = name.substr(0, kSettingShown);
    const auto of_call = of_calls.find(name);
    told.push_back(
        of_call != of_calls.end()
            ? fmt::format("{} is not read: --{} is given with each call", shown, of_call->second)
            : fmt::format("{} is no setting{}", shown, suggestion(name, words)));
  }
  return told;
}

Result<ConfigFile> load_config_file(const CommandLine& line, const Environment& environment) {
  std::string path;
  bool wanted = true;
  if (const auto flag = line.flags.find("config"); flag != line.flags.end()) {
    path = flag->second;
  } else if (const auto variable = environment.get(kConfigVariable)) {
    path = *variable;
  } else if (const auto directory = environment.config_directory()) {
    path = *directory + "/config.toml";
    wanted = false;
  } else {
    return ConfigFile{};
  }
  const Result<std::string> text = read_text(posix_storage(), path, kConfigBytesMax);
  if (!text) {
    const bool absent = text.error().code == ErrorCode::kNotFound;
    if (absent && !wanted) return ConfigFile{};
    // A missing settings file is a mistake of the call, not a bad model.
    return Error{absent ? ErrorCode::kInvalidArgument : text.error().code, text.error().message};
  }
  return parse_config_file(*text, path);
}

}  // namespace penstock
