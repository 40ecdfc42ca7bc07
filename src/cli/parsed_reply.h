// An answer on its way to a person, taken apart while it comes: reasoning and content are printed, calls
// of tools are collected.
//
// Threads  one
#pragma once

#include <memory>
#include <string>

#include "base/json.h"
#include "cli/answer_printer.h"
#include "cli/reply_printer.h"
#include "dialogue/answer_parser.h"

namespace penstock {

class ParsedReply final : public ReplySink {
 public:
  ParsedReply(const Tokenizer& tokenizer, AnswerFormat format, const ToolTypes& types,
              const Terminal& terminal, Output* output)
      : tokenizer_(tokenizer), parser_(std::move(format), types), printer_(terminal, output) {}

  void add(TokenId token) override { take(parser_.push(tokenizer_.token_bytes(token))); }
  bool is_stopped() const override { return parser_.is_stopped(); }
  void finish() override {}  // see end()

  // The rest. was_cut: by a limit or by the user.
  void end(bool was_cut);

  const std::string& content() const { return content_; }
  const std::string& reasoning() const { return reasoning_; }
  struct ParsedCall {
    std::string name, arguments;
  };
  const std::vector<ParsedCall>& calls() const { return calls_; }

 private:
  void take(const std::vector<AnswerEvent>& events);

  const Tokenizer& tokenizer_;
  AnswerParser parser_;
  AnswerPrinter printer_;
  std::string content_, reasoning_;
  std::vector<ParsedCall> calls_;
};

}  // namespace penstock
