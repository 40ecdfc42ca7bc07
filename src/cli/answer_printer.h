// An answer that comes in parts, on its way to a person: reasoning dimmed, then the content.
//
// Where there is no colour, </think> stands between them, as a model writes it.
//
// Threads  one
#pragma once

#include <string_view>

#include "cli/output.h"
#include "cli/terminal.h"

namespace penstock {

class AnswerPrinter {
 public:
  // `output` may be nullptr: nothing is printed.
  AnswerPrinter(const Terminal& terminal, Output* output) : terminal_(terminal), output_(output) {}

  void add_reasoning(std::string_view text);
  void add_content(std::string_view text);
  void finish();  // normal colours, and an end of line where the text has none

 private:
  enum class Part { kNothing, kReasoning, kContent };
  void write(std::string_view text);
  void begin_content();

  const Terminal& terminal_;
  Output* output_;
  Part part_ = Part::kNothing;
  bool is_line_open_ = false;
};

}  // namespace penstock
