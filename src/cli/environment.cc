#include "cli/environment.h"

#include <unistd.h>

#include <string_view>

extern "C" char** environ;  // as POSIX has it: not every system's headers declare it

namespace penstock {

Environment Environment::of_process() {
  Variables variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return Environment(std::move(variables));
}

std::optional<std::string> Environment::get(const std::string& name) const {
  const auto found = variables_.find(name);
  if (found == variables_.end() || found->second.empty()) return std::nullopt;
  return found->second;
}

std::optional<std::string> Environment::directory(const std::string& variable,
                                                  const std::string& below_home) const {
  // The specification of these variables says that a relative path is to be ignored.
  const std::optional<std::string> base = get(variable);
  if (base && base->front() == '/') return *base + "/penstock";
  const std::optional<std::string> home = get("HOME");
  if (!home) return std::nullopt;
  return *home + "/" + below_home + "/penstock";
}

std::optional<std::string> Environment::config_directory() const {
  return directory("XDG_CONFIG_HOME", ".config");
}

std::optional<std::string> Environment::state_directory() const {
  return directory("XDG_STATE_HOME", ".local/state");
}

}  // namespace penstock
