#include "cli/program.h"

#include <csignal>

#include "cli/command_line.h"

namespace penstock {
namespace {

Result<int> run_verb_of(Call& call) {
  switch (call.settings.verb()) {
    case Verb::kRun: return run_verb(call);
    case Verb::kChat: return chat_verb(call);
    case Verb::kServe: return serve_verb(call);
    case Verb::kPack: return pack_verb(call);
    case Verb::kShow: return show_verb(call);
    case Verb::kPlan: return plan_verb(call);
    case Verb::kDoctor: return doctor_verb(call);
    case Verb::kLogits: return logits_verb(call);
    case Verb::kScore: return score_verb(call);
    case Verb::kAnswer: return answer_verb(call);
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

Result<int> run_line(const CommandLine& line, const Environment& environment, Terminal& terminal,
                     Output& output) {
  const ConfigFile file = PENSTOCK_TRY(load_config_file(line, environment));
  const Settings settings = PENSTOCK_TRY(Settings::resolve(line, environment, file));
  terminal.set_loudness(loudness_of(settings));
  const std::unique_ptr<Interrupt> interrupt = PENSTOCK_TRY(Interrupt::install());
  Call call{line, settings, environment, file, terminal, output, *interrupt, posix_storage()};
  return run_verb_of(call);
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

int run_program(std::span<const char* const> arguments, const Environment& environment) {
  // A reader that goes away is seen by the write that fails, where there is something to tidy up.
  std::signal(SIGPIPE, SIG_IGN);
  Terminal terminal(environment, Loudness::kNormal);
  Output output;
  const bool json = wants_json(arguments);
  const Result<CommandLine> line = parse_command_line(arguments);
  if (!line) return report(line.error(), json, terminal, output);
  const Result<int> done = run_line(*line, environment, terminal, output);
  if (output.is_closed()) return kExitDone;
  if (!output.failure()) return report(output.failure().error(), false, terminal, output);
  if (!done) return report(done.error(), json, terminal, output);
  return *done;
}

}  // namespace penstock
