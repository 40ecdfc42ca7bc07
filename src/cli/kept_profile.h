// The profile that `penstock doctor` keeps: where it lies, what it says, and whether it is of this machine.
//
// Threads  plain functions
// Errors   kept_profile(): those of load_profile(), but kNotFound
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/program.h"
#include "survey/machine_profile.h"

namespace penstock {

struct KeptProfile {
  std::string path;
  MachineProfile profile;
  // From this machine; empty: it is of this one.
  std::vector<std::string> differences;
};

// Where the rates of this machine are kept: $XDG_STATE_HOME/penstock/profile.json. Empty: there is no place.
std::string own_profile_path(const Call& call);
// That, or what --machine names.
std::string profile_path(const Call& call);

// At a path of these. Nothing: there is none.
Result<std::optional<KeptProfile>> kept_profile(const Call& call, const std::string& path);

}  // namespace penstock
