#include "cli/answer_printer.h"

namespace penstock {

void AnswerPrinter::write(std::string_view text) {
  if (text.empty()) return;
  // A model's answer must not move cursors, retitle windows or answer queries.
  output_->write(terminal_.output_is_interactive() ? printable(text) : std::string(text));
  is_line_open_ = !text.ends_with('\n');
}

void AnswerPrinter::add_reasoning(std::string_view text) {
  if (output_ == nullptr || text.empty()) return;
  if (part_ != Part::kReasoning && terminal_.output_has_colour()) output_->write("\x1b[2m");
  part_ = Part::kReasoning;
  write(text);
}

void AnswerPrinter::begin_content() {
  if (part_ != Part::kReasoning) return;
  const bool has_colour = terminal_.output_has_colour();
  if (has_colour) output_->write("\x1b[0m");
  write(has_colour ? "\n\n" : "\n</think>\n\n");
}

void AnswerPrinter::add_content(std::string_view text) {
  if (output_ == nullptr || text.empty()) return;
  begin_content();
  part_ = Part::kContent;
  write(text);
}

void AnswerPrinter::finish() {
  if (output_ == nullptr) return;
  if (part_ == Part::kReasoning && terminal_.output_has_colour()) output_->write("\x1b[0m");
  if (is_line_open_ || part_ == Part::kNothing) output_->write("\n");
}

}  // namespace penstock
