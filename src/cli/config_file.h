// The configuration file: key = value lines, before any [section] for all verbs, below [run] for
// that verb alone.
//
//   memory = "6G"
//   [chat]
//   temp = 0.7
//
// The part of TOML that settings need: one line per key, strings in either quotes, whole and
// decimal numbers, true and false, comments. Anything else is refused with file and line, also keys
// and sections that mean nothing: a mistyped setting must not be ignored in silence.
//
// Errors  kInvalidArgument naming file, line and key.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace penstock {

struct ConfigEntry {
  std::string section;  // a verb's name; empty: all verbs
  std::string key;
  std::string value;  // without quotes
  int line = 0;
};

struct ConfigFile {
  std::string path;
  std::vector<ConfigEntry> entries;

  // The entry of the section, else the one for all verbs, else nullptr.
  const ConfigEntry* find(std::string_view section, std::string_view key) const;
};

// `path` is for errors.
Result<ConfigFile> parse_config_file(std::string_view text, const std::string& path);

}  // namespace penstock
