// The values of one verb's options for this call, and where each came from.
//
// Flag wins over environment, environment over configuration file, file over built-in value. (What
// a model's own generation_config.json says comes between the last two; only the verb that loads
// the model can know it.) Values are checked when they are resolved, so the getters cannot fail.
//
// Errors  kInvalidArgument naming the place of a value; those of reading the file
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/config_file.h"
#include "cli/environment.h"
#include "cli/options.h"

namespace penstock {

// What the command line held, before anything else is asked.
struct CommandLine {
  Verb verb = Verb::kHelp;
  std::map<std::string, std::string, std::less<>> flags;  // by name; "on" for a flag
  std::vector<std::string> arguments;
};

enum class Origin : uint8_t { kBuiltIn, kFile, kEnvironment, kFlag };

struct Setting {
  std::string text;
  Origin origin = Origin::kBuiltIn;
  std::string place;  // "--memory", "PENSTOCK_MEMORY", "/home/me/config.toml:3", "built-in"
};

class Settings {
 public:
  // kInvalidArgument naming the place of the first value that its option does not take.
  static Result<Settings> resolve(const CommandLine& line, const Environment& environment,
                                  const ConfigFile& file);

  Verb verb() const { return verb_; }
  const std::vector<std::string>& arguments() const { return arguments_; }

  // In place of what was typed, for the verb.
  void replace_argument(size_t i, std::string text) { arguments_[i] = std::move(text); }

  // `name` must be an option of the verb.
  const Setting& get(std::string_view name) const;
  bool is_given(std::string_view name) const { return get(name).origin != Origin::kBuiltIn; }
  bool is_on(std::string_view name) const { return penstock::is_on(text(name)); }
  const std::string& text(std::string_view name) const { return get(name).text; }
  int64_t integer(std::string_view name) const;  // 0 when empty, as the others
  double number(std::string_view name) const;
  uint64_t bytes(std::string_view name) const;
  std::vector<std::string> list(std::string_view name) const;  // split at commas; none is empty

 private:
  Verb verb_ = Verb::kHelp;
  std::vector<std::string> arguments_;
  std::map<std::string, Setting, std::less<>> settings_;
};

// A sentence for each variable that looks like a setting and is none: a slip of the hand would
// otherwise pass for a setting that is obeyed.
std::vector<std::string> misspelt_variables(const Environment& environment);

// The file to read settings from: --config, PENSTOCK_CONFIG, or the user's own if there is one.
// An empty ConfigFile when there is none.
Result<ConfigFile> load_config_file(const CommandLine& line, const Environment& environment);

}  // namespace penstock
