#include "cli/kept_profile.h"

#include <utility>

#include "host/machine.h"

namespace penstock {

std::string own_profile_path(const Call& call) {
  const auto folder = call.environment.state_directory();
  return folder ? *folder + "/profile.json" : "";
}

std::string profile_path(const Call& call) {
  const std::string& given = call.settings.text("machine");
  return given.empty() ? own_profile_path(call) : given;
}

Result<std::optional<KeptProfile>> kept_profile(const Call& call, const std::string& path) {
  if (path.empty()) return std::optional<KeptProfile>();
  Result<MachineProfile> profile = load_profile(call.storage, path);
  if (!profile) {
    if (profile.error().code == ErrorCode::kNotFound) return std::optional<KeptProfile>();
    return profile.error();
  }
  std::vector<std::string> others = differences(profile->machine, this_machine());
  return std::optional(KeptProfile{path, std::move(*profile), std::move(others)});
}

}  // namespace penstock
