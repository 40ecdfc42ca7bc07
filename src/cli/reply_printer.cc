#include "cli/reply_printer.h"

namespace penstock {

ReplyPrinter::ReplyPrinter(const Tokenizer& tokenizer, const Terminal& terminal, Output* output,
                           bool opens_reasoning)
    : tokenizer_(&tokenizer),
      terminal_(&terminal),
      output_(output),
      opens_reasoning_(opens_reasoning) {}

void ReplyPrinter::set_dim(bool dim) {
  if (dim == dim_ || output_ == nullptr || !terminal_->output_has_colour()) return;
  output_->write(dim ? "\x1b[2m" : "\x1b[0m");
  dim_ = dim;
}

void ReplyPrinter::print(const std::string& piece) {
  text_ += piece;
  if (output_ == nullptr) return;
  output_->write(terminal_->output_is_interactive() ? printable(piece) : piece);
}

void ReplyPrinter::add(TokenId token) {
  const std::string_view bytes = tokenizer_->token_bytes(token);
  if (opens_reasoning_ || bytes == "<think>") set_dim(true);
  opens_reasoning_ = false;
  print(characters_.push(bytes));
  if (bytes == "</think>") set_dim(false);
}

void ReplyPrinter::finish() {
  print(characters_.finish());
  set_dim(false);
  if (output_ != nullptr && !text_.ends_with('\n')) output_->write("\n");
}

}  // namespace penstock
