#include "cli/help.h"

#include <fmt/format.h>

#include <vector>

namespace penstock {
namespace {

constexpr size_t kHelpColumn = 30;
constexpr size_t kLineWidth = 100;

// `text` in lines of kLineWidth, the first one after `lead`, the others below it.
std::string aligned(const std::string& lead, std::string_view text) {
  std::string out = lead;
  size_t column = lead.size();
  if (column + 2 > kHelpColumn) {
    out += '\n';
    column = 0;
  }
  out.append(kHelpColumn - column, ' ');
  column = kHelpColumn;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    if (column > kHelpColumn && column + 1 + word.size() > kLineWidth) {
      out += '\n' + std::string(kHelpColumn, ' ');
      column = kHelpColumn;
    }
    if (column > kHelpColumn) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    text.remove_prefix(std::min(word.size() + 1, text.size()));
  }
  return out + '\n';
}

std::string option_help(const Option& option) {
  std::string lead = option.letter != 0 ? fmt::format("  -{}, ", option.letter) : "      ";
  lead += fmt::format("--{}", option.name);
  if (!option.placeholder.empty()) lead += fmt::format(" {}", option.placeholder);
  std::string text(option.help);
  const bool tells_default = !option.fallback.empty() && option.fallback != "0" &&
                             option.help.find("default") == std::string_view::npos;
  if (tells_default) text += fmt::format(" (default {})", option.fallback);
  return aligned(lead, text);
}

std::string options_help(Verb verb) {
  std::string out;
  std::vector<std::string_view> groups;
  for (const Option& option : all_options()) {
    if (groups.empty() || groups.back() != option.group) groups.push_back(option.group);
  }
  for (const std::string_view group : groups) {
    std::string rows;
    for (const Option& option : all_options()) {
      const bool shown = option.group == group && (option.verbs & bit(verb)) != 0;
      if (shown && !option.hidden) rows += option_help(option);
    }
    if (group == "General") rows += aligned("  -h, --help", "this text");
    if (!rows.empty()) out += fmt::format("\n{}:\n{}", group, rows);
  }
  return out;
}

}  // namespace

std::string program_help() {
  std::string out =
      "penstock runs Mixture-of-Experts models that are larger than memory by streaming their\n"
      "experts from flash.\n\n"
      "Usage: penstock VERB [ARGUMENT]... [OPTION]...\n\n";
  for (const VerbText& verb : all_verbs()) {
    out += aligned(fmt::format("  {} {}", verb.name, verb.arguments), verb.summary);
  }
  out +=
      "\n`penstock help VERB` lists the options of a verb. Most options can also be set in the\n"
      "environment (--top-k as PENSTOCK_TOP_K) or in $XDG_CONFIG_HOME/penstock/config.toml;\n"
      "`penstock config show` tells what is in force and why.\n\n"
      "Exit codes: 0 done, 1 failure, 2 wrong usage, 3 bad model file, 4 too little memory or "
      "disk,\n"
      "5 input/output error, 130 interrupted.\n\n"
      "penstock sends nothing to anyone unasked: no telemetry, no update check; it downloads what\n"
      "`pull` names and nothing else.\n";
  return out;
}

std::string verb_help(const VerbText& verb) {
  std::string out =
      fmt::format("penstock {}: {}\n\nUsage: penstock {} {}{}[OPTION]...\n", verb.name,
                  verb.summary, verb.name, verb.arguments, verb.arguments.empty() ? "" : " ");
  if (!verb.details.empty()) out += fmt::format("\n{}\n", verb.details);
  return out + options_help(verb.verb);
}

}  // namespace penstock
