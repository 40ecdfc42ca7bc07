// An answer on its way to a person: whole characters as they come, reasoning dimmed.
//
// Threads  one
#pragma once

#include <string>

#include "cli/output.h"
#include "cli/terminal.h"
#include "text/tokenizer.h"
#include "text/utf8_stream.h"

namespace penstock {

class ReplyPrinter {
 public:
  // `output` may be nullptr: the text is only collected.
  ReplyPrinter(const Tokenizer& tokenizer, const Terminal& terminal, Output* output,
               bool opens_reasoning);

  void add(TokenId token);

  // The rest, normal colours, and an end of line where the text has none (text() stays as it is).
  void finish();

  const std::string& text() const { return text_; }  // valid UTF-8

 private:
  void print(const std::string& piece);
  void set_dim(bool dim);

  const Tokenizer* tokenizer_;
  const Terminal* terminal_;
  Output* output_;
  Utf8Stream characters_;
  std::string text_;
  bool dim_ = false;
  bool opens_reasoning_;
};

}  // namespace penstock
