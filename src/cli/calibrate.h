// pack --calibrate: runs the source over texts and keeps what its experts saw.
//
// FILE is plain text, or JSON lines ("{" comes first) whose "text" or whose "messages" (and "tools")
// are taken. Texts are cut into windows, each from an empty state; of the windows only so many are
// run that --calibrate-tokens are seen, evenly chosen from all.
//
// Errors   kInvalidArgument: the file holds no text; of loading and running the model
#pragma once

#include "base/result.h"
#include "cli/program.h"
#include "pack/calibration.h"

namespace penstock {

// The file of the calibration is `path`; it goes away with the object.
Result<Calibration> calibrate(Call& call, const std::string& path);

}  // namespace penstock
