// From argv to a verb, its flags and its arguments, by the table of options.
//
// Errors  kInvalidArgument with a sentence that names the flag and says what to do.
#pragma once

#include <span>
#include <string>

#include "cli/settings.h"

namespace penstock {

// `arguments`: argv without the program's name. --help after a verb is `help VERB`; --version and
// --help alone are the verbs of these names.
Result<CommandLine> parse_command_line(std::span<const char* const> arguments);

// True when --json stands on a command line, even on one that cannot be parsed: its error is to be
// JSON too.
bool wants_json(std::span<const char* const> arguments);

}  // namespace penstock
