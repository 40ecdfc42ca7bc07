#include "cli/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <exception>
#include <new>

#include "cli/command_line.h"
#include "cli/hub_access.h"

namespace penstock {
namespace {

Result<int> run_verb_of(Call& call) {
  switch (call.settings.verb()) {
    case Verb::kRun: return run_verb(call);
    case Verb::kChat: return chat_verb(call);
    case Verb::kServe: return serve_verb(call);
    case Verb::kPack: return pack_verb(call);
    case Verb::kPull: return pull_verb(call);
    case Verb::kLs: return ls_verb(call);
    case Verb::kRm: return rm_verb(call);
    case Verb::kShow: return show_verb(call);
    case Verb::kPlan: return plan_verb(call);
    case Verb::kDoctor: return doctor_verb(call);
    case Verb::kLogits: return logits_verb(call);
    case Verb::kScore: return score_verb(call);
    case Verb::kAnswer: return answer_verb(call);
    case Verb::kEval: return eval_verb(call);
    case Verb::kBench: return bench_verb(call);
    case Verb::kSynth: return synth_verb(call);
    case Verb::kConfig: return config_verb(call);
    case Verb::kCompletions: return completions_verb(call);
    case Verb::kVersion: return version_verb(call);
    case Verb::kHelp: return help_verb(call);
  }
  return kExitFailure;
}

Loudness loudness_of(const Settings& settings) {
  if (settings.is_on("quiet")) return Loudness::kQuiet;
  return settings.is_on("verbose") ? Loudness::kVerbose : Loudness::kNormal;
}

// Verbs that tell about the program itself: a slip in a settings file or in the environment must not
// stop the very verbs that help to find it.
bool tells_about_program(Verb verb) {
  return verb == Verb::kHelp || verb == Verb::kVersion || verb == Verb::kConfig ||
         verb == Verb::kCompletions;
}

struct Sources {
  ConfigFile file;
  Settings settings;
};

Result<Sources> read_settings(const CommandLine& line, const Environment& environment,
                              Terminal& terminal) {
  Result<ConfigFile> file = load_config_file(line, environment);
  if (!file) {
    if (!tells_about_program(line.verb)) return file.error();
    terminal.warning(file.error().message);
    file = ConfigFile{};
  }
  Result<Settings> settings = Settings::resolve(line, environment, *file);
  if (!settings && tells_about_program(line.verb)) {
    terminal.warning(settings.error().message);
    settings = Settings::resolve(line, Environment({}), {});
  }
  if (!settings) return settings.error();
  return Sources{*std::move(file), *std::move(settings)};
}

// Whether an error is to be JSON, also one that came before all settings were known: by the command
// line, then the environment, then the file.
bool wants_json_errors(std::span<const char* const> arguments, const Result<CommandLine>& line,
                       const Environment& environment) {
  if (const std::optional<bool> flag = wants_json(arguments)) return *flag;
  if (const auto variable = environment.get("PENSTOCK_JSON")) return is_on(*variable);
  const CommandLine known = line ? *line : CommandLine{};
  const Result<ConfigFile> file = load_config_file(known, environment);
  const ConfigEntry* entry = file ? file->find(text_of(known.verb).name, "json") : nullptr;
  return entry != nullptr && is_on(entry->value);
}

Result<int> run_line(const CommandLine& line, const Environment& environment, Storage& storage,
                     Terminal& terminal, Output& output) {
  auto [file, settings] = PENSTOCK_TRY(read_settings(line, environment, terminal));
  terminal.set_loudness(loudness_of(settings));
  for (const std::string& text : misspelt_variables(environment)) terminal.warning(text);
  PENSTOCK_TRY(find_model_argument(settings, environment, storage));
  const std::unique_ptr<Interrupt> interrupt = PENSTOCK_TRY(Interrupt::install());
  Call call{line, settings, environment, file, terminal, output, *interrupt, storage};
  return run_verb_of(call);
}

// Exceptions of libraries end here; there are none of our own.
Result<int> run_line_to_the_end(const CommandLine& line, const Environment& environment,
                                Storage& storage, Terminal& terminal, Output& output) {
  try {
    return run_line(line, environment, storage, terminal, output);
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kOutOfMemory,
                 "the system gives no more memory (ulimit -v, or a container's limit); give a "
                 "smaller --memory, or raise that limit"};
  } catch (const std::exception& error) {
    return Error{ErrorCode::kIo, fmt::format("the system or a library gave up: {}", error.what())};
  }
}

int report(const Error& error, bool json, Terminal& terminal, Output& output) {
  terminal.error(error.message);
  if (json) {
    const Json body{{"code", name_of(error.code)}, {"message", message_text(error.message)}};
    output.write_line(Json{{"error", body}});
  }
  return exit_code_of(error.code);
}

}  // namespace

int exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return 2;
    case ErrorCode::kNotFound:
    case ErrorCode::kCorrupt:
    case ErrorCode::kUnsupported: return 3;
    case ErrorCode::kOutOfMemory: return 4;
    case ErrorCode::kIo: return 5;
    case ErrorCode::kCancelled: return kExitInterrupted;
  }
  return kExitFailure;
}

std::string_view name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kNotFound: return "not_found";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kOutOfMemory: return "out_of_memory";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kCancelled: return "cancelled";
  }
  return "failure";
}

namespace {

// A descriptor that was closed when the program started would be given to the next file that is
// opened, and what is meant for a person would be written into it. Its place is taken: reading and
// writing fail there, as they did.
void occupy_standard_descriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // Takes the lowest free number, which is this one. A folder is neither read nor written.
    static_cast<void>(::open("/", O_RDONLY | O_DIRECTORY));
  }
}

}  // namespace

int run_program(std::span<const char* const> arguments, const Environment& environment,
                Storage& storage) {
  occupy_standard_descriptors();
  // A reader that goes away is seen by the write that fails, where there is something to tidy up;
  // a file that may not grow (ulimit -f) likewise.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  Terminal terminal(environment, Loudness::kNormal);
  Output output;
  const Result<CommandLine> line = parse_command_line(arguments);
  const bool json = wants_json_errors(arguments, line, environment);
  if (!line) return report(line.error(), json, terminal, output);
  const Result<int> done = run_line_to_the_end(*line, environment, storage, terminal, output);
  if (output.is_closed()) return kExitDone;
  // Who was interrupted by a window that closed cannot write to it any more.
  if (done && *done == kExitInterrupted) return *done;
  if (!output.failure()) return report(output.failure().error(), false, terminal, output);
  if (!done) return report(done.error(), json, terminal, output);
  return *done;
}

}  // namespace penstock
