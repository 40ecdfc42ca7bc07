// An answer as its text comes, cut into what a client is told apart: reasoning, content, tool calls.
//
// The cutting is dialogue's (answer_parser.h); here calls get the ids that protocols want, and those
// after the first are dropped where a client takes one at a time.
//
//   ReplyParser parser(options);
//   for (const ReplyDelta& delta : parser.push(event.text)) ...
//   for (const ReplyDelta& delta : parser.finish(was_cut)) ...
//
// Invariants  where a piece of text ends changes where a delta ends, never what all say together
// Threads     one
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "dialogue/answer_parser.h"
#include "server/generator.h"

namespace penstock {

struct ReplyDelta {
  enum class Kind { kReasoning, kContent, kCallBegin, kCallArguments, kCallEnd };
  Kind kind = Kind::kContent;
  std::string text;      // of arguments: JSON text
  int call = 0;          // index among the calls of the answer
  std::string id, name;  // kCallBegin
};

struct ReplyCall {
  std::string id, name, arguments;
};

struct ReplyToken {
  TokenLogprob logprob;
  bool is_first = false;  // of an echoed prompt: nothing foretells it
  std::vector<TokenLogprob> top;
};

struct ReplyChoice {
  std::string reasoning, content;
  std::vector<ReplyCall> calls;
  std::vector<TokenId> ids;        // of the answer
  std::vector<ReplyToken> tokens;  // where logprobs were asked for
  FinishReason reason = FinishReason::kStop;
  std::string stop_string;

  void add(const ReplyDelta& delta);
};

class ReplyParser {
 public:
  struct Options {
    bool opens_reasoning = false;
    bool splits_reasoning = true;  // false: all of it is content
    Json tools;                    // null: calls are text
    ToolForm form = ToolForm::kTagged;
    std::string call_id_prefix = "call_";
    bool allows_several_calls = true;
  };
  explicit ReplyParser(const Options& options);

  std::vector<ReplyDelta> push(std::string_view text);
  std::vector<ReplyDelta> finish(bool was_cut);
  // Calls that broke off, and values that were not of their schema's type.
  int failures() const;

 private:
  std::vector<ReplyDelta> deltas_of(const std::vector<AnswerEvent>& events) const;

  std::string call_id_prefix_;
  bool allows_several_calls_, splits_reasoning_;
  std::unique_ptr<const ToolTypes> types_;  // at one place: the parser refers to them
  std::unique_ptr<AnswerParser> parser_;    // absent: the text is told as it is
};

}  // namespace penstock
