// From argv to a verb, its flags and its arguments, by the table of options.
//
// Errors  kInvalidArgument with a sentence that names the flag and says what to do.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "cli/settings.h"

namespace penstock {

// `arguments`: argv without the program's name. --help after a verb is `help VERB`; --version and
// --help alone are the verbs of these names.
Result<CommandLine> parse_command_line(std::span<const char* const> arguments);

// What a command line says about --json, even one that cannot be parsed: its error is to be JSON too.
std::optional<bool> wants_json(std::span<const char* const> arguments);

}  // namespace penstock
