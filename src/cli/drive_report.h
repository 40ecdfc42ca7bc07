// What became of the drives that experts were read from, where several hold the same files (--mirror).
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "cli/program.h"
#include "store/expert_store.h"

namespace penstock {

// A line for each drive from which reads failed while others had the same bytes.
std::vector<std::string> drive_texts(const std::vector<DriveReport>& drives);

// As warnings, when a verb has done its work.
void tell_drives(const Call& call, const std::vector<DriveReport>& drives);

// [{"path", "reads", "bytes", "failures", "bytes_per_second", "is_resting"}]
Json drives_json(const std::vector<DriveReport>& drives);

}  // namespace penstock
