// The table of all options of all verbs: parser, help, completions, environment, configuration file
// and `config show` are made from it, so that they cannot say different things.
//
// To add an option: one row in options.cc, and a line in the verb that uses it. What verbs say of
// themselves is in verb_texts.cc, what values an option takes in option_values.cc.
//
// Errors  check_value(): kInvalidArgument naming the option and what it takes
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock {

enum class Verb : uint8_t {
  kRun,
  kChat,
  kServe,
  kPack,
  kPull,
  kLs,
  kRm,
  kShow,
  kPlan,
  kDoctor,
  kBench,
  kSynth,
  kLogits,
  kScore,
  kAnswer,
  kEval,
  kConfig,
  kCompletions,
  kVersion,
  kHelp,
};
inline constexpr int kNumVerbs = 20;

struct VerbText {
  Verb verb;
  std::string_view name;
  std::string_view arguments;  // "MODEL", as in the usage line
  int arguments_min;
  int arguments_max;
  std::string_view summary;  // one line
  std::string_view details;  // lines for `help VERB`
};

std::span<const VerbText> all_verbs();
const VerbText& text_of(Verb verb);
const VerbText* find_verb(std::string_view name);

// Whether its first argument is a model that is there, as a path or as the name of one that was pulled.
bool takes_model(Verb verb);

// A set of verbs.
constexpr uint32_t bit(Verb verb) {
  return 1u << static_cast<int>(verb);
}

enum class OptionKind : uint8_t {
  kFlag,    // present or not; on or off in environment and file
  kSwitch,  // on or off
  kChoice,
  kText,
  kInteger,
  kNumber,
  kBytes,  // 6G, 512M
};

struct Option {
  std::string_view name;  // without dashes
  char letter;            // of the short form; 0: none
  OptionKind kind;
  uint32_t verbs;
  std::string_view group;        // heading in the help
  std::string_view placeholder;  // of the value in the help
  std::string_view fallback;     // the built-in value; empty: none
  std::string_view help;
  std::string_view choices = "";  // "auto|uring|threads"
  double low = 0;                 // kInteger and kNumber
  double high = static_cast<double>(std::numeric_limits<int32_t>::max());
  bool per_call = false;  // names this call's input or output: no environment, no file
  bool hidden = false;    // for tests and experiments: not in the help
};

std::span<const Option> all_options();

// By name, among those of `verb`; nullptr when it has none.
const Option* find_option(Verb verb, std::string_view name);

// Whether any verb has an option of this name that may stand in a configuration file.
bool is_setting(std::string_view name);

// PENSTOCK_TOP_K
std::string environment_name(const Option& option);

// kInvalidArgument with what was expected; the caller says where the text came from.
Result<void> check_value(const Option& option, const std::string& text);

// on, true, yes, 1; the others are off. For texts that check_value accepted.
bool is_on(std::string_view text);

}  // namespace penstock
