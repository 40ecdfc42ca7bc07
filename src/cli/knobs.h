// Where the knobs of a call come from: those that won on this machine, which its profile keeps, and
// above them those of --knob.
//
// Errors  kInvalidArgument naming --knob. A profile that cannot be used is told and left aside: the
//         answer is the same without it.
#pragma once

#include "cli/program.h"
#include "engine/options.h"

namespace penstock {

Result<void> apply_knobs(const Call& call, EngineOptions& options);

// `config knobs`: every knob with its value on this machine, its range, and where the value is from.
void show_knobs(const Call& call);

}  // namespace penstock
