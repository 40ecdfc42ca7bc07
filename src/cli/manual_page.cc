#include <fmt/format.h>

#include "cli/help.h"

namespace penstock {
namespace {

// Text as roff takes it: no line may begin with a control character.
std::string roff(std::string_view text) {
  std::string out;
  bool at_line_start = true;
  for (const char c : text) {
    if (at_line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') out += "\\e";
    if (c == '-') out += "\\-";
    if (c != '\\' && c != '-') out += c;
    at_line_start = c == '\n';
  }
  return out;
}

std::string option_entry(const Option& option) {
  std::string names = option.letter != 0 ? fmt::format("\\fB\\-{}\\fR, ", option.letter) : "";
  names += fmt::format("\\fB{}\\fR", roff(fmt::format("--{}", option.name)));
  if (!option.placeholder.empty()) names += fmt::format(" \\fI{}\\fR", roff(option.placeholder));
  return fmt::format(".TP\n{}\n{}\n", names, roff(option.help));
}

std::string verb_section(const VerbText& verb) {
  std::string out =
      fmt::format(".SS {} {}\n{}.\n", verb.name, roff(verb.arguments), roff(verb.summary));
  if (!verb.details.empty()) out += fmt::format(".PP\n{}\n", roff(verb.details));
  for (const Option& option : all_options()) {
    const bool shown = (option.verbs & bit(verb.verb)) != 0 && !option.hidden;
    if (shown && option.group != "General") out += option_entry(option);
  }
  return out;
}

std::string general_options() {
  std::string out = ".SH OPTIONS OF EVERY VERB\n";
  for (const Option& option : all_options()) {
    if (option.group == "General") out += option_entry(option);
  }
  return out;
}

}  // namespace

std::string manual_page(std::string_view version) {
  std::string out = fmt::format(
      ".TH PENSTOCK 1 \"\" \"penstock {}\" \"User Commands\"\n"
      ".SH NAME\npenstock \\- run Mixture-of-Experts models that are larger than memory\n"
      ".SH SYNOPSIS\n.B penstock\n.I VERB\n.RI [ ARGUMENT ]...\n.RI [ OPTION ]...\n"
      ".SH DESCRIPTION\nWeights that every token needs stay in memory; experts stream from flash "
      "through a cache.\nNothing is sent to anyone: no telemetry, no update check, no network.\n"
      ".SH VERBS\n",
      version);
  for (const VerbText& verb : all_verbs()) out += verb_section(verb);
  out += general_options();
  out +=
      ".SH ENVIRONMENT\nAn option \\-\\-top\\-k can be set as PENSTOCK_TOP_K. NO_COLOR, "
      "CLICOLOR_FORCE and TERM=dumb are honoured.\n"
      ".SH FILES\n.TP\n$XDG_CONFIG_HOME/penstock/config.toml\nSettings: key = value, in sections "
      "named like verbs for one verb alone.\n.TP\n$XDG_STATE_HOME/penstock/history\nLines typed "
      "in chats.\n"
      ".SH EXIT STATUS\n0 done, 1 failure, 2 wrong usage, 3 bad model file, 4 too little memory or "
      "disk, 5 input/output error, 130 interrupted.\n";
  return out;
}

}  // namespace penstock
