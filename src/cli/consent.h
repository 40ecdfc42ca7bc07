// What removes files for good is asked about before: by a name that has to be typed. And whether a
// source may be consumed (`pack --in-place`): that its files are its own, and that somebody said so.
//
// Threads  one
// Errors   kInvalidArgument: a file is a link, has other names, is marked read-only, nobody can be
//          asked, or another name was typed. Ctrl-C ends the program, with 130
#pragma once

#include <string>

#include "base/result.h"
#include "cli/program.h"
#include "pack/pack.h"

namespace penstock {

// At a terminal: tells `what` happens and waits for the name. Nothing is there yet to tidy up, and the
// call's policy of interrupts is kExit meanwhile; the caller sets the one that it wants afterwards.
Result<void> type_name(Call& call, const std::string& what, const std::string& name);

// Without --yes, at a terminal: asks for the name of `source`, its folder or file, to be typed.
Result<void> consent_in_place(Call& call, const std::string& source, const InPlaceFacts& facts);

}  // namespace penstock
