// The body of an answer of /chat/completions as it comes, and what it says in the end: server-sent
// events, or one JSON object where a server does not stream.
//
//   ChatStream stream(is_events);
//   PENSTOCK_TRY(stream.push(piece, on_delta));
//   const ChatAnswer answer = PENSTOCK_TRY(stream.finish(on_delta));
//
// Servers differ: reasoning comes as reasoning_content or as reasoning, calls come in pieces or whole,
// with an index or without, arguments as text or as an object.
//
// Invariants  (1) where a piece ends changes nothing but where a delta ends
//             (2) arguments of a call are a JSON object, or the answer says what they were
// Threads     one
// Memory      an event, and the answer; kAnswerBytesMax
// Errors      kIo: what came is no answer, ended in its middle, or is an error that the server tells
// Source      OpenAI's API, chat completions
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

inline constexpr size_t kAnswerBytesMax = 32u << 20;
inline constexpr size_t kAnswerCallsMax = 128;

struct ChatDelta {
  enum class Kind : uint8_t { kReasoning, kContent, kCallBegin, kPrompt, kQueue };
  Kind kind = Kind::kContent;
  std::string text = {};        // of kCallBegin the name
  int64_t done = 0, total = 0;  // kPrompt: tokens read; kQueue: done is the position
};

struct CalledTool {
  std::string id, name, arguments;  // JSON text
};

struct ChatAnswer {
  std::string reasoning, content;
  std::vector<CalledTool> calls;
  std::string finish_reason;  // "stop", "length", "tool_calls"; empty: it was not told
  Json usage, timings;        // null where not told
};

class ChatStream {
 public:
  using OnDelta = std::function<void(const ChatDelta&)>;

  explicit ChatStream(bool is_events) : is_events_(is_events) {}

  Result<void> push(std::string_view body, const OnDelta& on_delta);
  Result<ChatAnswer> finish(const OnDelta& on_delta);
  // What came until now, where nobody waits for the rest.
  ChatAnswer take() { return std::move(answer_); }

 private:
  Result<void> take_line(std::string_view line, const OnDelta& on_delta);
  Result<void> take_object(const Json& json, const OnDelta& on_delta);
  Result<void> take_message(const Json& message, const OnDelta& on_delta);
  Result<void> take_call(const Json& call, size_t position, const OnDelta& on_delta);

  bool is_events_;
  std::string held_;   // a line that is not whole, or the whole JSON
  std::string event_;  // data of an event that is not whole
  size_t bytes_ = 0;
  bool is_ended_ = false;  // [DONE], or a reason to end
  std::vector<int64_t> indices_;
  ChatAnswer answer_;
};

// What a server says is wrong, from the body of an error; the body's beginning where it is nothing known.
std::string error_message_of(std::string_view body);

}  // namespace penstock
