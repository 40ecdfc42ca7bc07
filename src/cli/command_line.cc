#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <deque>
#include <vector>

namespace penstock {
namespace {

Error usage(std::string_view verb, const std::string& message) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("{}; see `penstock help{}{}`", message, verb.empty() ? "" : " ", verb)};
}

// The parser's target of one option.
struct Target {
  const Option* option;
  std::string text;
  bool present = false;
};

void add_to(CLI::App& app, Verb verb, Target& target) {
  const Option& option = *target.option;
  std::string names = fmt::format("--{}", option.name);
  // A letter of another verb's option may mean something else there.
  const bool own = (option.verbs & bit(verb)) != 0;
  if (option.letter != 0 && own) names += fmt::format(",-{}", option.letter);
  if (option.kind == OptionKind::kFlag) {
    app.add_flag(names, target.present);
  } else {
    // The last one wins, so that a script's flags can be overruled behind them.
    app.add_option(names, target.text)->take_last();
  }
}

// The options that may stand after a verb. `config show` takes those of every verb, so that one can
// ask what a command line would mean.
std::vector<const Option*> options_for(Verb verb) {
  std::vector<const Option*> options;
  for (const Option& option : all_options()) {
    const bool own = (option.verbs & bit(verb)) != 0;
    const bool asked_about = verb == Verb::kConfig && !option.per_call;
    const bool new_name = std::ranges::none_of(
        options, [&](const Option* other) { return other->name == option.name; });
    if ((own || asked_about) && new_name) options.push_back(&option);
  }
  return options;
}

// CLI11 reports by exceptions; they end here.
Result<void> parse(CLI::App& app, std::span<const char* const> arguments, std::string_view verb) {
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& error) {
    return usage(verb, error.what());
  }
  return {};
}

Result<void> check_arguments(const VerbText& verb, const CommandLine& line) {
  const auto count = static_cast<int>(line.arguments.size());
  if (count >= verb.arguments_min && count <= verb.arguments_max) return {};
  if (count > verb.arguments_max) {
    return usage(verb.name,
                 fmt::format("unexpected \"{}\"; {} takes {}",
                             line.arguments[static_cast<size_t>(verb.arguments_max)], verb.name,
                             verb.arguments.empty() ? "no argument" : verb.arguments));
  }
  return usage(verb.name, fmt::format("{} needs {}", verb.name, verb.arguments));
}

Result<CommandLine> parse_verb(const VerbText& verb, std::span<const char* const> arguments) {
  CLI::App app;
  app.set_help_flag();
  std::deque<Target> targets;
  for (const Option* option : options_for(verb.verb)) {
    add_to(app, verb.verb, targets.emplace_back(Target{option, "", false}));
  }
  CommandLine line;
  line.verb = verb.verb;
  bool help = false;
  app.add_flag("--help,-h", help);
  app.add_option("arguments", line.arguments);
  PENSTOCK_TRY(parse(app, arguments, verb.name));
  if (help) return CommandLine{Verb::kHelp, {}, {std::string(verb.name)}};
  for (const Target& target : targets) {
    const std::string name(target.option->name);
    if (app.count("--" + name) == 0) continue;
    line.flags[name] = target.option->kind == OptionKind::kFlag ? "on" : target.text;
  }
  PENSTOCK_TRY(check_arguments(verb, line));
  return line;
}

}  // namespace

Result<CommandLine> parse_command_line(std::span<const char* const> arguments) {
  if (arguments.empty()) return usage("", "a verb is missing");
  const std::string_view first = arguments.front();
  if (first == "--help" || first == "-h") return CommandLine{Verb::kHelp, {}, {}};
  if (first == "--version") return CommandLine{Verb::kVersion, {}, {}};
  const VerbText* verb = find_verb(first);
  if (verb != nullptr) return parse_verb(*verb, arguments.subspan(1));
  if (first.starts_with('-')) {
    return usage("",
                 fmt::format("\"{}\" comes before the verb; write penstock VERB {}", first, first));
  }
  return usage("", fmt::format("there is no verb \"{}\"", first));
}

bool wants_json(std::span<const char* const> arguments) {
  return std::ranges::any_of(arguments,
                             [](const char* text) { return std::string_view(text) == "--json"; });
}

}  // namespace penstock
