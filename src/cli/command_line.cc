#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <deque>
#include <vector>

#include "cli/suggest.h"

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
};

void add_to(CLI::App& app, Verb verb, Target& target) {
  const Option& option = *target.option;
  std::string names = fmt::format("--{}", option.name);
  // A letter of another verb's option may mean something else there.
  const bool own = (option.verbs & bit(verb)) != 0;
  if (option.letter != 0 && own) names += fmt::format(",-{}", option.letter);
  if (option.kind == OptionKind::kFlag) {
    // As text, so that --force=false is read as what it says.
    app.add_flag(names, target.text)->take_last();
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

// A flag that the verb has not: another verb's, or a slip.
std::string unknown_flag(const VerbText& verb, const std::string& typed) {
  const std::string name = typed.substr(0, typed.find('='));
  if (!name.starts_with("--")) return fmt::format("{} has no flag {}", verb.name, name);
  const std::string_view bare = std::string_view(name).substr(2);
  std::string owners;
  for (const VerbText& other : all_verbs()) {
    if (find_option(other.verb, bare) != nullptr) {
      owners += fmt::format("{}{}", owners.empty() ? "" : ", ", other.name);
    }
  }
  if (!owners.empty()) {
    return fmt::format("{} has no flag {}, which is one of: {}", verb.name, name, owners);
  }
  std::vector<std::string_view> names;
  for (const Option* option : options_for(verb.verb)) names.push_back(option->name);
  return fmt::format("there is no flag {}{}", name, suggestion(bare, names, "--"));
}

// CLI11 names the option and then says "1 required TEXT missing".
std::string missing_value(const VerbText& verb, const std::string& message) {
  const std::string name = message.substr(0, message.find(':'));
  for (const Option* option : options_for(verb.verb)) {
    if (name != fmt::format("--{}", option->name)) continue;
    return fmt::format("{} needs a value; write {}={}, also where it begins with a dash", name,
                       name, option->placeholder);
  }
  return message;
}

// CLI11 reports by exceptions, in words for programmers; they end here.
Result<void> parse(CLI::App& app, std::span<const char* const> arguments, const VerbText& verb) {
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ExtrasError& error) {
    const std::vector<std::string> extras = app.remaining();
    return usage(verb.name, extras.empty() ? error.what() : unknown_flag(verb, extras.front()));
  } catch (const CLI::ArgumentMismatch& error) {
    return usage(verb.name, missing_value(verb, error.what()));
  } catch (const CLI::ParseError& error) {
    return usage(verb.name, error.what());
  }
  return {};
}

// "--memory --temp 1": the parser would take --temp for an amount of memory.
Result<void> check_values(const VerbText& verb, std::span<const char* const> arguments) {
  const auto option_of = [&](std::string_view text) -> const Option* {
    return text.starts_with("--") ? find_option(verb.verb, text.substr(2, text.find('=') - 2))
                                  : nullptr;
  };
  for (size_t i = 0; i + 1 < arguments.size(); ++i) {
    const std::string_view text = arguments[i];
    if (text == "--") return {};
    const Option* option = option_of(text);
    if (option == nullptr || option->kind == OptionKind::kFlag || text.find('=') != text.npos)
      continue;
    ++i;
    if (option_of(arguments[i]) == nullptr) continue;
    return usage(verb.name, missing_value(verb, fmt::format("{}:", text)));
  }
  return {};
}

// The parser takes --force= for --force; whoever wrote --force=$WORD meant the word.
Result<void> check_switches(const VerbText& verb, std::span<const char* const> arguments) {
  for (const std::string_view text : arguments) {
    if (text == "--") return {};
    if (!text.starts_with("--") || !text.ends_with('=')) continue;
    const std::string_view name = text.substr(2, text.size() - 3);
    const Option* option = find_option(verb.verb, name);
    if (option == nullptr || option->kind != OptionKind::kFlag) continue;
    return usage(verb.name,
                 fmt::format("--{}= has no value; write --{}, or --{}=off", name, name, name));
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
    add_to(app, verb.verb, targets.emplace_back(Target{option, ""}));
  }
  CommandLine line;
  line.verb = verb.verb;
  bool help = false;
  app.add_flag("--help,-h", help);
  app.add_option("arguments", line.arguments);
  PENSTOCK_TRY(check_switches(verb, arguments));
  PENSTOCK_TRY(check_values(verb, arguments));
  PENSTOCK_TRY(parse(app, arguments, verb));
  if (help) return CommandLine{Verb::kHelp, {}, {std::string(verb.name)}};
  for (const Target& target : targets) {
    const std::string name(target.option->name);
    if (app.count("--" + name) == 0) continue;
    const bool is_bare = target.option->kind == OptionKind::kFlag && target.text == "true";
    line.flags[name] = is_bare ? "on" : target.text;
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
  std::vector<std::string_view> names;
  for (const VerbText& known : all_verbs()) names.push_back(known.name);
  return usage("", fmt::format("there is no verb \"{}\"{}", first, suggestion(first, names)));
}

std::optional<bool> wants_json(std::span<const char* const> arguments) {
  constexpr std::string_view kFlag = "--json";
  std::optional<bool> wanted;
  for (const std::string_view text : arguments) {
    if (text == kFlag) wanted = true;
    if (text.starts_with("--json=")) wanted = is_on(text.substr(kFlag.size() + 1));
  }
  return wanted;
}

}  // namespace penstock
