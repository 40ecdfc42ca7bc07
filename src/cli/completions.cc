#include <fmt/format.h>

#include <algorithm>

#include "cli/help.h"

namespace penstock {
namespace {

std::string verb_names() {
  std::string names;
  for (const VerbText& verb : all_verbs()) names += fmt::format("{} ", verb.name);
  names.pop_back();
  return names;
}

std::string flags_of(Verb verb) {
  std::string flags;
  for (const Option& option : all_options()) {
    if ((option.verbs & bit(verb)) == 0 || option.hidden) continue;
    flags += fmt::format("--{} ", option.name);
  }
  return flags + "--help";
}

std::string spaced(std::string_view choices) {
  std::string words(choices);
  std::ranges::replace(words, '|', ' ');
  return words;
}

// What may follow a flag, as words; empty: a file or anything else.
std::string values_of(const Option& option) {
  if (option.kind == OptionKind::kChoice) return spaced(option.choices);
  return option.kind == OptionKind::kSwitch ? "on off" : "";
}

std::string in_shell_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string bash_script() {
  std::string out =
      "# bash completion for penstock: source this file, or put it into\n"
      "# ~/.local/share/bash-completion/completions/penstock\n"
      "_penstock() {\n"
      "  local word=\"${COMP_WORDS[COMP_CWORD]}\" before=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n";
  out += fmt::format("    COMPREPLY=($(compgen -W \"{}\" -- \"$word\"))\n", verb_names());
  out += "    return\n  fi\n  case \"${COMP_WORDS[1]} $before\" in\n";
  for (const VerbText& verb : all_verbs()) {
    for (const Option& option : all_options()) {
      const std::string values = values_of(option);
      if ((option.verbs & bit(verb.verb)) == 0 || option.hidden || values.empty()) continue;
      out +=
          fmt::format("    '{} --{}') COMPREPLY=($(compgen -W \"{}\" -- \"$word\")); return ;;\n",
                      verb.name, option.name, values);
    }
  }
  out += "  esac\n  if [[ \"$word\" == -* ]]; then\n    case \"${COMP_WORDS[1]}\" in\n";
  for (const VerbText& verb : all_verbs()) {
    out += fmt::format("      {}) COMPREPLY=($(compgen -W \"{}\" -- \"$word\")) ;;\n", verb.name,
                       flags_of(verb.verb));
  }
  return out +
         "    esac\n  else\n    COMPREPLY=($(compgen -f -- \"$word\"))\n  fi\n}\n"
         "complete -o filenames -F _penstock penstock\n";
}

std::string zsh_script() {
  std::string out =
      "#compdef penstock\n# zsh completion for penstock: put it into a folder of $fpath as "
      "_penstock\n"
      "_penstock() {\n  if (( CURRENT == 2 )); then\n    local -a verbs=(\n";
  for (const VerbText& verb : all_verbs()) {
    out +=
        fmt::format("      {}\n", in_shell_quotes(fmt::format("{}:{}", verb.name, verb.summary)));
  }
  out += "    )\n    _describe verb verbs\n    return\n  fi\n  case $words[2] in\n";
  for (const VerbText& verb : all_verbs()) {
    out += fmt::format("    {}) _arguments", verb.name);
    for (const Option& option : all_options()) {
      if ((option.verbs & bit(verb.verb)) == 0 || option.hidden) continue;
      std::string help(option.help);
      // Colons and brackets mean something in these rows.
      for (const char c : std::string_view("[]:")) std::ranges::replace(help, c, ',');
      std::string row = fmt::format("--{}[{}]", option.name, help);
      const std::string values = values_of(option);
      if (!values.empty()) {
        row += fmt::format(":value:({})", values);
      } else if (option.kind != OptionKind::kFlag) {
        row += ":value:_files";
      }
      out += " " + in_shell_quotes(row);
    }
    out += " '*:file:_files' ;;\n";
  }
  return out + "  esac\n}\n_penstock \"$@\"\n";
}

std::string fish_script() {
  std::string out =
      "# fish completion for penstock: put it into ~/.config/fish/completions/penstock.fish\n";
  for (const VerbText& verb : all_verbs()) {
    out += fmt::format("complete -c penstock -n __fish_use_subcommand -f -a {} -d {}\n", verb.name,
                       in_shell_quotes(verb.summary));
    for (const Option& option : all_options()) {
      if ((option.verbs & bit(verb.verb)) == 0 || option.hidden) continue;
      out += fmt::format("complete -c penstock -n '__fish_seen_subcommand_from {}' -l {}",
                         verb.name, option.name);
      if (option.letter != 0) out += fmt::format(" -s {}", option.letter);
      const std::string values = values_of(option);
      if (!values.empty()) out += fmt::format(" -x -a '{}'", values);
      if (values.empty() && option.kind != OptionKind::kFlag) out += " -r";
      out += fmt::format(" -d {}\n", in_shell_quotes(option.help));
    }
  }
  return out;
}

}  // namespace

std::optional<std::string> completion_script(std::string_view shell) {
  if (shell == "bash") return bash_script();
  if (shell == "zsh") return zsh_script();
  if (shell == "fish") return fish_script();
  return std::nullopt;
}

}  // namespace penstock
