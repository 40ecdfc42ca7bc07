// Whether a source may be consumed (`pack --in-place`): that its files are its own, and that somebody
// said so.
//
// Threads  one
// Errors   kInvalidArgument: a file is a link, has other names, is marked read-only, or nobody can be
//          asked. kCancelled: asked, and not agreed
#pragma once

#include <string>

#include "base/result.h"
#include "cli/program.h"
#include "pack/pack.h"

namespace penstock {

// Without --yes, at a terminal: asks for the name of `source`, its folder or file, to be typed.
Result<void> consent_in_place(Call& call, const std::string& source, const InPlaceFacts& facts);

}  // namespace penstock
