// One answer on its way to a client: events of a generation in, words of a protocol out.
//
// answer_call() is the one loop for all protocols: it submits, tells the first words before the
// prompt is read, then deltas, progress and heartbeats, and ends with the figures; or it collects
// everything and tells it at once. A Replier knows how a protocol words each of these.
//
// Threads  one worker per reply
// Errors   before the first word: a status of HTTP; after it: an error event, and the stream ends
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/api/chat_call.h"
#include "server/api/reply_parser.h"
#include "server/http/server.h"

namespace penstock {

// What is known of an answer so far.
struct ReplyState {
  const ServedModel& model;
  const ChatCall& call;
  std::string id;       // "chatcmpl-..."
  int64_t created = 0;  // seconds since 1970
  std::vector<ReplyChoice> choices;
  GenerationProgress progress;
  // Of this choice, not told with a delta yet: where logprobs or return_tokens asked for them.
  std::vector<ReplyToken> new_tokens;
  std::vector<TokenId> new_ids;

  const ReplyChoice& choice(int index) const { return choices[static_cast<size_t>(index)]; }
};

class Replier {
 public:
  virtual ~Replier() = default;
  virtual Protocol protocol() const = 0;
  virtual std::string id_prefix() const = 0;
  virtual std::string call_id_prefix() const { return "call_"; }
  virtual std::string stream_type() const { return "text/event-stream; charset=utf-8"; }

  // Of a stream. Empty: this protocol says nothing here.
  virtual std::string begin(const ReplyState& reply) = 0;
  virtual std::string heartbeat(const ReplyState& reply) = 0;
  virtual std::string prompt_progress(const ReplyState&) { return ""; }
  virtual std::string delta(const ReplyState& reply, int choice, const ReplyDelta& delta) = 0;
  virtual std::string end_choice(const ReplyState& reply, int choice) = 0;
  virtual std::string end(const ReplyState& reply) = 0;
  virtual std::string error(const ReplyState& reply, const ApiError& error) = 0;

  virtual Json whole(const ReplyState& reply) = 0;
};

void answer_call(Exchange& exchange, Generator& generator, const ServedModel& model,
                 const ChatCall& call, Replier& replier);

// Parts that several protocols share.
std::string sse(const Json& data);                          // "data: {...}\n\n"
std::string sse(std::string_view event, const Json& data);  // with "event: ..." before it
Json usage_json(const GenerationProgress& progress);        // of OpenAI
Json timings_of(const GenerationProgress& progress);        // llama.cpp's names, and "penstock"
Json progress_json(const GenerationProgress& progress);     // of prompt_progress
Json logprob_json(const ServedModel& model, const ReplyToken& token, bool with_top);
std::string token_text(const ServedModel& model, TokenId id);  // valid UTF-8
std::string random_id(std::string_view prefix);                // 24 letters and digits behind it
std::string_view finish_word(const ReplyChoice& choice);       // stop, length, tool_calls

// X-Penstock-Ignored, where a request had fields that nobody knows.
std::vector<HttpHeader> ignored_header(const ChatCall& call);

}  // namespace penstock
