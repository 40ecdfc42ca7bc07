// One call of penstock, from argv to exit code; and what every verb is given.
//
// Errors become one line on standard error and an exit code here, and nowhere else.
#pragma once

#include <span>

#include "cli/environment.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/settings.h"
#include "cli/terminal.h"
#include "io/storage.h"

namespace penstock {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitInterrupted = 130;

int exit_code_of(ErrorCode code);
std::string_view name_of(ErrorCode code);  // "not_found", in JSON

struct Call {
  const CommandLine& line;
  const Settings& settings;
  const Environment& environment;
  const ConfigFile& config_file;
  Terminal& terminal;
  Output& output;
  Interrupt& interrupt;
  Storage& storage;

  const std::string& argument(size_t i) const { return settings.arguments()[i]; }
  bool json() const { return settings.is_on("json"); }
};

// The verbs, a file each. They return the exit code, or an Error that was not reported yet.
Result<int> answer_verb(Call& call);
Result<int> bench_verb(Call& call);
Result<int> chat_verb(Call& call);
Result<int> completions_verb(Call& call);
Result<int> config_verb(Call& call);
Result<int> doctor_verb(Call& call);
Result<int> eval_verb(Call& call);
Result<int> help_verb(Call& call);
Result<int> logits_verb(Call& call);
Result<int> ls_verb(Call& call);
Result<int> pack_verb(Call& call);
Result<int> plan_verb(Call& call);
Result<int> pull_verb(Call& call);
Result<int> rm_verb(Call& call);
Result<int> run_verb(Call& call);
Result<int> score_verb(Call& call);
Result<int> serve_verb(Call& call);
Result<int> show_verb(Call& call);
Result<int> synth_verb(Call& call);
Result<int> version_verb(Call& call);

// `arguments`: argv without the program's name. `storage`: the disk; tests have others.
int run_program(std::span<const char* const> arguments, const Environment& environment,
                Storage& storage = posix_storage());

}  // namespace penstock
