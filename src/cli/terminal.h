// What a person sees beside the result: notes, warnings and progress on standard error, and what
// the terminals at both ends can do.
//
// Honoured: NO_COLOR, CLICOLOR_FORCE, TERM=dumb (no colour, no cursor movement), --quiet.
//
// Threads  one
#pragma once

#include <string>
#include <string_view>

#include "cli/environment.h"

namespace penstock {

enum class Loudness { kQuiet, kNormal, kVerbose };

class Terminal {
 public:
  Terminal(const Environment& environment, Loudness loudness);

  bool is_quiet() const { return loudness_ == Loudness::kQuiet; }
  bool is_verbose() const { return loudness_ == Loudness::kVerbose; }
  void set_loudness(Loudness loudness) { loudness_ = loudness; }

  // A person sits there, and it can move the cursor.
  bool input_is_interactive() const { return input_; }
  bool output_is_interactive() const { return output_; }
  bool errors_are_interactive() const { return errors_; }
  bool output_has_colour() const { return output_colour_; }

  int columns() const;  // of the terminal at standard error, 80 when there is none

  // One or more lines; the last one's end may be left out. All of them through message_text():
  // messages quote what files say.
  void note(std::string_view line) const;     // unless quiet
  void detail(std::string_view line) const;   // when verbose
  void warning(std::string_view line) const;  // always
  void error(std::string_view line) const;    // "penstock: ...", always

  // Raw text on standard error: for progress.
  void show(std::string_view text) const;

 private:
  Loudness loudness_;
  bool input_, output_, errors_;
  bool output_colour_, errors_colour_;
};

// `text` as a terminal may be given it: control characters other than newline and tab become
// U+FFFD, since a model's answer must not move cursors, retitle windows or answer queries.
std::string printable(std::string_view text);

// The same for a message or table that quotes files: what turns the direction of writing becomes
// U+FFFD, too, and a line longer than kLineBytesMax is cut. A message of one thing, not a table, is
// cut after kMessageBytesMax as well, and its further lines are indented, so that none can pass for
// one of ours.
inline constexpr size_t kLineBytesMax = 2000;
inline constexpr size_t kMessageBytesMax = 4000;
std::string table_text(std::string_view text);
std::string message_text(std::string_view text);

}  // namespace penstock
