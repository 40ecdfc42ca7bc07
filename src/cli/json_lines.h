// A file of JSON lines: one object a line, each with an "id". Empty lines are skipped.
//
// Errors  those of reading the file; kInvalidArgument naming the line
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "cli/settings.h"
#include "io/storage.h"

namespace penstock {

// The file that the option `name` gives. kInvalidArgument naming file and line.
Result<std::vector<Json>> read_json_lines(Storage& storage, const Settings& settings,
                                          const std::string& name);

// The id of a line, for errors: "qa-0010".
std::string id_text(const Json& line);

}  // namespace penstock
