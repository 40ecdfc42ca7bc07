// Packing a checkpoint by the flags of a call: of `pack`, and of `pull --pack`.
//
// Errors   pack_checkpoint(): those of pack_model(), kInvalidArgument for flags that do not go together
#pragma once

#include <optional>
#include <stop_token>
#include <string>

#include "base/result.h"
#include "cli/program.h"
#include "pack/pack.h"

namespace penstock {

struct PackPaths {
  std::string source, target;
};

// What contradicts itself among the flags, before anything is read.
Result<void> check_packing_flags(const Settings& settings);

// Checks a packed model and tells its faults. The exit code says whether there are any.
Result<int> verify_packed(Call& call, const std::string& model, std::stop_token stop);

// Judges its texts, packs it and tells of it; the exit code. The call's policy of interrupts is kStop.
// `arriving`: the source comes file by file, and the call's storage shows it.
Result<int> pack_checkpoint(Call& call, const PackPaths& paths,
                            std::optional<ArrivingFiles> arriving = {});

}  // namespace penstock
