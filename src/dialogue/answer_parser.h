// An answer as it comes, taken apart: reasoning, content, tool calls.
//
//   AnswerParser parser(format, types);
//   for (...) for (AnswerEvent& event : parser.push(bytes)) ...
//   for (AnswerEvent& event : parser.finish(AnswerParser::Ending::kEnded)) ...
//
// Calls are read in the form that the chat template asks for (tool_form_of). The name of a call is
// told as soon as it is certain; arguments follow as pieces of one JSON object: texts as they come,
// other values of a tagged call when they are whole, the text of a JSON call as the model wrote it.
// What only looks like a call is text and is not lost. A call that breaks off in its middle ends
// there, its arguments closed, and the rest is content. Calls may begin inside the reasoning.
//
// Newlines around a reasoning, blanks between content and a call and between calls belong to the
// template and are left out. Stop strings end the content; none is seen in reasoning or calls.
//
// Invariants
//   (1) texts are whole UTF-8 characters; invalid bytes are U+FFFD
//   (2) events in sum (texts of neighbours of one kind joined) do not depend on where bytes are cut
//   (3) the pieces of a call's arguments joined are a valid JSON object once kCallEnd was told
// Threads     one at a time. `types` must outlive the parser.
// Memory      holds what is not yet certain: a tag, a stop string, one value that is not a text.
// Source      the templates of Qwen3.5 and Qwen3
// See also    grammar/tool_grammar.h makes sure that calls are whole
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dialogue/json_stream.h"
#include "dialogue/stop_strings.h"
#include "dialogue/tool_types.h"
#include "grammar/tool_grammar.h"
#include "text/utf8_stream.h"

namespace penstock {

struct AnswerFormat {
  std::optional<ToolForm> form = {};  // nothing: calls are text
  bool opens_reasoning = false;       // the prompt has opened <think>
  std::vector<std::string> stops = {};
};

struct AnswerEvent {
  enum class Kind : uint8_t { kReasoning, kContent, kCallBegin, kArguments, kCallEnd };
  Kind kind = Kind::kContent;
  int call = -1;          // its index, from 0
  std::string text = {};  // a piece; of kCallBegin the name
  friend bool operator==(const AnswerEvent&, const AnswerEvent&) = default;
};

class AnswerParser {
 public:
  enum class Ending : uint8_t {
    kEnded,  // by the model: what is unfinished is text
    kCut,    // by a limit: unfinished tags are dropped, a call that has begun is closed
  };

  AnswerParser(AnswerFormat format, const ToolTypes& types);

  std::vector<AnswerEvent> push(std::string_view bytes);
  std::vector<AnswerEvent> finish(Ending ending);

  // A stop string was met: nothing more will come, and nothing needs to be generated.
  bool is_stopped() const { return stops_.is_stopped(); }
  const std::string& stop() const { return stops_.matched(); }
  int call_count() const { return call_count_; }
  // Values that were not of their schema's type and stayed texts, and calls that broke off.
  int untyped_count() const { return untyped_count_; }
  int broken_count() const { return broken_count_; }

 private:
  enum class State : uint8_t {
    kStart,  // perhaps <think>
    kReasoning,
    kContent,
    kBetween,     // behind </parameter> or the name of a tagged call
    kValueBegin,  // behind <parameter=KEY>
    kValue,
    kCallTail,  // behind </function>: perhaps </tool_call>
    kJsonArguments,
    kJsonTail,  // behind the arguments
  };
  enum class Step : uint8_t { kOn, kWait };

  Step step();
  Step step_start();
  Step step_text();
  Step step_between();
  Step step_value_begin();
  Step step_value();
  Step step_json_arguments();
  Step step_tail(std::initializer_list<std::string_view> expected);

  // Is there a call at the beginning of the buffer? Nothing: not yet certain.
  std::optional<bool> begin_call();
  std::optional<bool> begin_tagged_call();
  std::optional<bool> begin_json_call();
  std::optional<bool> take_whole_json_call(size_t begin);

  void run();
  void take(size_t bytes) { buffer_.erase(0, bytes); }
  void text(std::string_view piece);
  void reasoning(std::string_view piece);
  void content(std::string_view certain);
  void emit(AnswerEvent::Kind kind, std::string text);
  void open_call(std::string name);
  void close_call();
  void open_parameter();
  void add_value(std::string_view piece);
  void end_parameter();
  Step end_inside_value();

  AnswerFormat format_;
  const ToolTypes& types_;
  StopStrings stops_;
  Utf8Stream utf8_;
  std::string buffer_;
  std::vector<AnswerEvent> events_;
  State state_ = State::kStart;
  State text_state_ = State::kContent;  // or kReasoning
  bool is_think_open_ = false;
  bool is_last_ = false;  // nothing more comes: what is undecided is decided
  Ending ending_ = Ending::kEnded;
  bool has_reasoned_ = false;  // something of it was told
  std::string blanks_;         // of the reasoning or the content, told when more follows
  std::string_view leading_;   // what is left out before the next content

  int call_count_ = 0;
  int untyped_count_ = 0;
  int broken_count_ = 0;
  // The call that is open.
  std::string function_;
  std::string parameter_;
  std::vector<std::string> seen_;  // its parameters
  bool has_lines_ = false;         // the value stands on lines of its own
  bool is_opening_ = false;        // the newline before the value is still in the buffer
  bool is_text_ = false;
  bool is_repeated_ = false;  // a parameter that was there already is left out
  std::string value_;
  JsonStream json_;
};

}  // namespace penstock
