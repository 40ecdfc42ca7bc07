#include <fmt/format.h>

#include <cctype>

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

std::string heading(std::string_view title, std::string_view version) {
  return fmt::format(".TH {} 1 \"\" \"penstock {}\" \"User Commands\"\n", title, version);
}

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

// Where options can stand besides the command line, and how it ends: the same on every page.
std::string tail() {
  return ".SH ENVIRONMENT\nAn option \\-\\-top\\-k can be set as PENSTOCK_TOP_K. NO_COLOR, "
         "CLICOLOR_FORCE and TERM=dumb are honoured.\n"
         ".SH FILES\n.TP\n$XDG_CONFIG_HOME/penstock/config.toml\nSettings: key = value, in "
         "sections "
         "named like verbs for one verb alone.\n.TP\n$XDG_STATE_HOME/penstock/history\nLines typed "
         "in chats.\n"
         ".SH EXIT STATUS\n0 done, 1 failure, 2 wrong usage, 3 bad model file, 4 too little memory "
         "or "
         "disk, 5 input/output error, 130 interrupted.\n";
}

}  // namespace

std::string manual_page(std::string_view version) {
  std::string out = heading("PENSTOCK", version);
  out +=
      ".SH NAME\npenstock \\- run Mixture-of-Experts models that are larger than memory\n"
      ".SH SYNOPSIS\n.B penstock\n.I VERB\n.RI [ ARGUMENT ]...\n.RI [ OPTION ]...\n"
      ".SH DESCRIPTION\nWeights that every token needs stay in memory; experts stream from flash "
      "through a cache.\nNothing is sent to anyone unasked: no telemetry, no update check, no "
      "downloads but those of pull.\n"
      ".SH VERBS\nEach has a page of its own.\n";
  for (const VerbText& verb : all_verbs()) {
    out += fmt::format(".TP\n\\fBpenstock\\-{}\\fR(1)\n{}.\n", verb.name, roff(verb.summary));
  }
  return out + tail();
}

std::string manual_page_of(const VerbText& verb, std::string_view version) {
  std::string out = heading("PENSTOCK\\-" + upper(verb.name), version);
  out += fmt::format(".SH NAME\npenstock\\-{} \\- {}\n", verb.name, roff(verb.summary));
  out += fmt::format(".SH SYNOPSIS\n\\fBpenstock {}\\fR {} [\\fIOPTION\\fR]...\n", verb.name,
                     roff(verb.arguments));
  if (!verb.details.empty()) out += fmt::format(".SH DESCRIPTION\n{}\n", roff(verb.details));
  std::string_view group;
  for (const Option& option : all_options()) {
    if ((option.verbs & bit(verb.verb)) == 0 || option.hidden) continue;
    if (group.empty()) out += ".SH OPTIONS\n";
    if (option.group != group) out += fmt::format(".SS {}\n", option.group);
    group = option.group;
    out += option_entry(option);
  }
  out += tail();
  return out + ".SH SEE ALSO\n\\fBpenstock\\fR(1)\n";
}

}  // namespace penstock
