// An answer on its way to a person: whole characters as they come, reasoning dimmed, no stop string and
// nothing behind it. Stop strings count behind the reasoning.
//
// Threads  one
#pragma once

#include <string>
#include <vector>

#include "cli/output.h"
#include "cli/terminal.h"
#include "dialogue/stop_strings.h"
#include "text/tokenizer.h"
#include "text/utf8_stream.h"

namespace penstock {

// Whoever takes an answer token by token.
class ReplySink {
 public:
  virtual ~ReplySink() = default;
  virtual void add(TokenId token) = 0;
  virtual bool is_stopped() const = 0;  // a stop string was met: nothing more is wanted
  virtual void finish() = 0;            // no more tokens
};

class ReplyPrinter final : public ReplySink {
 public:
  // `output` may be nullptr: the text is only collected.
  ReplyPrinter(const Tokenizer& tokenizer, const Terminal& terminal, Output* output,
               bool opens_reasoning, std::vector<std::string> stops);

  void add(TokenId token) override;
  bool is_stopped() const override { return stops_.is_stopped(); }

  // The rest, normal colours, and an end of line where the text has none (text() stays as it is).
  void finish() override;

  const std::string& text() const { return text_; }  // valid UTF-8

 private:
  void print(const std::string& piece);
  void set_dim(bool dim);

  const Tokenizer* tokenizer_;
  const Terminal* terminal_;
  Output* output_;
  Utf8Stream characters_;
  StopStrings stops_;
  bool is_reasoning_;
  std::string text_;
  bool dim_ = false;
  bool opens_reasoning_;
};

}  // namespace penstock
