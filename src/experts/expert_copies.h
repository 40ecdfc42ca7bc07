// Copies of a model's expert files in folders on other drives (--mirror).
//
// A copy has the name of its file and is equal to it byte for byte; whoever made it (`cp`) need not be
// trusted, since what comes from it is compared with the checksums of the model.
//
// Errors   open_copies(): kNotFound, kIo; kInvalidArgument for the model's own file and for too many;
//          check_table() compares the lengths
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "experts/expert_source.h"
#include "io/storage.h"

namespace penstock {

// Adds them to the source. What a person should hear: a copy beside its file is no faster.
Result<std::vector<std::string>> open_copies(Storage& storage, std::span<const std::string> folders,
                                             ExpertSource& source);

}  // namespace penstock
