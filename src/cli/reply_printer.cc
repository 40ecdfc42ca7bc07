#include "cli/reply_printer.h"

namespace penstock {

ReplyPrinter::ReplyPrinter(const Tokenizer& tokenizer, const Terminal& terminal, Output* output,
                           bool opens_reasoning, std::vector<std::string> stops)
    : tokenizer_(&tokenizer),
      terminal_(&terminal),
      output_(output),
      stops_(std::move(stops)),
      is_reasoning_(opens_reasoning),
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
  const bool begins = opens_reasoning_ || bytes == "<think>";
  if (begins) {
    print(stops_.flush());
    set_dim(true);
    is_reasoning_ = true;
  }
  opens_reasoning_ = false;
  const std::string text = characters_.push(bytes);
  print(is_reasoning_ ? text : stops_.push(text));
  if (bytes == "</think>") {
    set_dim(false);
    is_reasoning_ = false;
  }
}

void ReplyPrinter::finish() {
  const std::string rest = characters_.finish();
  print(is_reasoning_ ? rest : stops_.push(rest));
  print(stops_.flush());
  set_dim(false);
  if (output_ != nullptr && !text_.ends_with('\n')) output_->write("\n");
}

}  // namespace penstock
