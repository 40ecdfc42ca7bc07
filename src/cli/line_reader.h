// Lines that a person types, with editing and history on a terminal, as they are from anywhere
// else.
//
// Threads  one
// Limits   one editing reader at a time; it sets the process's character type to UTF-8
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cli/interrupt.h"
#include "cli/terminal.h"

namespace penstock {

struct Line {
  enum class Status { kLine, kInterrupted, kTooLong, kEnd };
  Status status = Status::kEnd;
  std::string text;  // without the end of line; valid UTF-8
};

// Work for the time in which nobody types: a few milliseconds of it, and how long it need not be
// done again; negative: never until the next read().
using IdleWork = std::function<std::chrono::milliseconds()>;

class LineReader {
 public:
  virtual ~LineReader() = default;

  virtual void set_idle_work(IdleWork work) = 0;

  // `prompt` is shown on a terminal only. An interrupt ends the reading: kInterrupted, with what
  // was typed lost.
  virtual Line read(const std::string& prompt) = 0;

  // Adds to the history.
  virtual void remember(const std::string& text) = 0;
};

// Edits where both input and output are terminals; text that is pasted is one line of the
// conversation, whatever ends of lines it has. `history_path`: nothing is kept without it. A longer
// line than `line_bytes_max` from anywhere else is kTooLong, and what follows is the rest of it.
std::unique_ptr<LineReader> make_line_reader(const Terminal& terminal, const Interrupt& interrupt,
                                             const std::optional<std::string>& history_path,
                                             uint64_t line_bytes_max);

}  // namespace penstock
