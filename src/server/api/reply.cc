#include "server/api/reply.h"

#include <fmt/format.h>

#include <chrono>
#include <random>
#include <utility>

#include "text/utf8.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = GenerationEvent::Kind;

// The loop over one generation's events; tells them while streaming, collects them in any case.
class Answering {
 public:
  // `head`: of an answer that is not streamed.
  Answering(Exchange& exchange, Generation& generation, ReplyState& reply, Replier& replier,
            const HttpResponse& head)
      : exchange_(exchange),
        generation_(generation),
        reply_(reply),
        replier_(replier),
        head_(head) {
    ReplyParser::Options options;
    options.opens_reasoning = reply.call.generation.opens_reasoning;
    options.splits_reasoning = reply.call.splits_reasoning;
    if (reply.call.tool_choice != CallChoice::kNever) options.tools = reply.call.conversation.tools;
    options.form = reply.model.tool_form;
    options.call_id_prefix = replier.call_id_prefix();
    options.allows_several_calls = reply.call.parallel_calls;
    for (int i = 0; i < reply.call.generation.num_choices; ++i) parsers_.emplace_back(options);
  }

  // Nothing when all went well.
  std::optional<ApiError> run() {
    const bool streams = reply_.call.streams;
    if (streams) tell(replier_.begin(reply_));
    for (;;) {
      const auto event = generation_.next(patience());
      if (exchange_.gone().stop_requested() && !is_shutting_down(event)) return left();
      reply_.progress = generation_.progress();
      if (!event) {
        if (is_time_to_ping()) tell(streams ? replier_.heartbeat(reply_) : " ");
        continue;
      }
      if (event->kind == Kind::kFinished) return {};
      if (event->kind == Kind::kFailed) return api_error(*event->error);
      take(*event);
    }
  }

  // White space was sent already, of an answer that is not streamed.
  bool has_begun() const { return has_begun_; }

 private:
  // Who shuts down only its sending side hears it: half an answer is not told as a whole one.
  static ApiError left() {
    return {.status = 499,
            .message =
                "the client has closed its side of the connection, which "
                "ends its request here"};
  }
  static bool is_shutting_down(const std::optional<GenerationEvent>& event) {
    return event && event->kind == Kind::kFailed && !event->is_by_client &&
           event->error->code == ErrorCode::kCancelled;
  }

  void tell(const std::string& words) {
    if (words.empty()) return;
    last_told_ = Clock::now();
    if (!reply_.call.streams && !std::exchange(has_begun_, true)) exchange_.begin_stream(head_);
    if (!exchange_.write(words)) generation_.cancel();
  }

  std::chrono::milliseconds ping_interval() const {
    return std::chrono::milliseconds(reply_.call.streams ? reply_.call.ping_interval_ms
                                                         : reply_.model.json_ping_interval_ms);
  }
  bool is_time_to_ping() const {
    return ping_interval().count() > 0 && Clock::now() - last_told_ >= ping_interval();
  }
  std::chrono::milliseconds patience() const {
    constexpr std::chrono::milliseconds kLongest{3'600'000};
    if (ping_interval().count() == 0) return kLongest;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        last_told_ + ping_interval() - Clock::now());
    return std::max(left, std::chrono::milliseconds(0)) + std::chrono::milliseconds(1);
  }

  void take(const GenerationEvent& event) {
    const bool streams = reply_.call.streams;
    ReplyChoice& choice = reply_.choices[static_cast<size_t>(event.choice)];
    if (event.kind == Kind::kPrompt && streams) tell(replier_.prompt_progress(reply_));
    if (event.kind == Kind::kPrompt || event.kind == Kind::kStarted) return;
    if (event.kind == Kind::kPromptToken || event.logprob) {
      const bool is_first = event.kind == Kind::kPromptToken && choice.tokens.empty();
      const TokenLogprob logprob = event.logprob.value_or(TokenLogprob{event.token, 0});
      choice.tokens.push_back({logprob, is_first, event.top});
      reply_.new_tokens.push_back(choice.tokens.back());
    }
    if (event.kind == Kind::kPromptToken) return;
    ReplyParser& parser = parsers_[static_cast<size_t>(event.choice)];
    if (event.kind == Kind::kToken) {
      choice.ids.push_back(event.token);
      if (reply_.call.tells_tokens) reply_.new_ids.push_back(event.token);
    }
    take_deltas(event.choice, parser.push(event.text));
    if (event.kind == Kind::kToken) return;
    take_deltas(event.choice, parser.finish(event.reason == FinishReason::kLength));
    if (std::atomic<uint64_t>* failures = reply_.model.call_failures) {
      *failures += static_cast<uint64_t>(parser.failures());
    }
    choice.reason = event.reason;
    choice.stop_string = event.stop_string;
    remember(choice);
    if (streams) tell(replier_.end_choice(reply_, event.choice));
    forget_new_tokens();
  }

  // A whole turn, to be read as it was written when the client sends it back.
  void remember(const ReplyChoice& choice) {
    const ChatCall& call = reply_.call;
    const bool is_whole = choice.reason == FinishReason::kStop && choice.stop_string.empty();
    TurnMemory* turns = reply_.model.turns;
    if (turns == nullptr || !is_whole || call.prompt_text.empty() || !call.splits_reasoning ||
        call.conversation.continues_last) {
      return;
    }
    Json message{{"content", choice.content}, {"reasoning_content", choice.reasoning}};
    message["tool_calls"] = Json::array();
    for (const ReplyCall& made : choice.calls) {
      message["tool_calls"].push_back(
          Json{{"function", {{"name", made.name}, {"arguments", made.arguments}}}});
    }
    turns->remember({.messages = call.conversation.messages.size(),
                     .prompt_text = call.prompt_text,
                     .prompt = call.generation.prompt,
                     .answer = choice.ids,
                     .message = std::move(message)});
  }

  void take_deltas(int choice, const std::vector<ReplyDelta>& deltas) {
    for (const ReplyDelta& delta : deltas) {
      reply_.choices[static_cast<size_t>(choice)].add(delta);
      if (!reply_.call.streams) continue;
      const std::string words = replier_.delta(reply_, choice, delta);
      if (words.empty()) continue;  // the tokens go with the next
      tell(words);
      forget_new_tokens();
    }
  }

  void forget_new_tokens() {
    reply_.new_tokens.clear();
    reply_.new_ids.clear();
  }

  Exchange& exchange_;
  Generation& generation_;
  ReplyState& reply_;
  Replier& replier_;
  const HttpResponse& head_;
  bool has_begun_ = false;
  std::vector<ReplyParser> parsers_;
  Clock::time_point last_told_ = Clock::now();
};

int64_t seconds_since_1970() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

void answer_call(Exchange& exchange, Generator& generator, const ServedModel& model,
                 const ChatCall& call, Replier& replier) {
  Generator::Submitted submitted = generator.submit(call.generation);
  if (submitted.generation == nullptr) {
    ApiError error = api_error(submitted.error);
    if (submitted.error.kind == SubmitError::Kind::kTooLong) {
      error.more =
          Json{{"n_prompt_tokens", call.generation.prompt.size()}, {"n_ctx", model.context}};
    }
    return exchange.respond(error_response(replier.protocol(), error));
  }
  ReplyState reply{model, call, random_id(replier.id_prefix()), seconds_since_1970(), {}, {},
                   {},    {}};
  reply.choices.resize(static_cast<size_t>(call.generation.num_choices));
  reply.progress = submitted.generation->progress();
  const std::stop_callback gone(exchange.gone(), [&] { submitted.generation->cancel(); });

  HttpResponse head;
  head.headers = ignored_header(call);
  if (call.streams) {
    head.content_type = replier.stream_type();
    head.headers.push_back({"Cache-Control", "no-cache"});
    head.headers.push_back({"X-Accel-Buffering", "no"});
    exchange.begin_stream(head);
  }
  Answering answering(exchange, *submitted.generation, reply, replier, head);
  const auto error = answering.run();
  if (call.streams) {
    exchange.write(error ? replier.error(reply, *error) : replier.end(reply));
    exchange.end_stream();
  } else if (answering.has_begun()) {  // its status was 200
    exchange.write(to_text(error ? error_json(replier.protocol(), *error) : replier.whole(reply)));
    exchange.end_stream();
  } else if (error) {
    exchange.respond(error_response(replier.protocol(), *error));
  } else {
    head.body = to_text(replier.whole(reply));
    exchange.respond(std::move(head));
  }
}

std::string sse(const Json& data) {
  return "data: " + to_text(data) + "\n\n";
}

std::string sse(std::string_view event, const Json& data) {
  return fmt::format("event: {}\n{}", event, sse(data));
}

Json usage_json(const GenerationProgress& progress) {
  return Json{{"prompt_tokens", progress.prompt_tokens},
              {"completion_tokens", progress.answer_tokens},
              {"total_tokens", progress.prompt_tokens + progress.answer_tokens},
              {"prompt_tokens_details", {{"cached_tokens", progress.cached_tokens}}},
              {"completion_tokens_details", {{"reasoning_tokens", progress.reasoning_tokens}}}};
}

Json timings_of(const GenerationProgress& progress) {
  Json timings = timings_json(progress.metrics);
  timings["penstock"] = penstock_json(progress.metrics);
  timings["penstock"]["queue_ms"] = progress.queue_ms;
  return timings;
}

Json progress_json(const GenerationProgress& progress) {
  return Json{{"total", progress.prompt_tokens},
              {"cache", progress.cached_tokens},
              {"processed", progress.processed_tokens},
              {"time_ms", progress.prompt_ms}};
}

std::string token_text(const ServedModel& model, TokenId id) {
  return replace_invalid_utf8(model.texts->tokenizer->token_bytes(id));
}

namespace {

Json logprob_entry(const ServedModel& model, const TokenLogprob& token) {
  const std::string_view bytes = model.texts->tokenizer->token_bytes(token.id);
  Json numbers = Json::array();
  for (const char c : bytes) numbers.push_back(static_cast<unsigned char>(c));
  return Json{{"token", token_text(model, token.id)},
              {"logprob", token.logprob},
              {"bytes", std::move(numbers)}};
}

}  // namespace

Json logprob_json(const ServedModel& model, const ReplyToken& token, bool with_top) {
  Json entry = logprob_entry(model, token.logprob);
  entry["top_logprobs"] = Json::array();
  if (!with_top) return entry;
  for (const TokenLogprob& other : token.top) {
    entry["top_logprobs"].push_back(logprob_entry(model, other));
  }
  return entry;
}

std::string random_id(std::string_view prefix) {
  constexpr std::string_view kLetters =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  std::random_device device;
  std::string id(prefix);
  for (int i = 0; i < 24; ++i) id += kLetters[device() % kLetters.size()];
  return id;
}

std::string_view finish_word(const ReplyChoice& choice) {
  if (choice.reason == FinishReason::kLength) return "length";
  return choice.calls.empty() ? "stop" : "tool_calls";
}

std::vector<HttpHeader> ignored_header(const ChatCall& call) {
  if (call.ignored.empty()) return {};
  std::string names;
  for (const std::string& name : call.ignored) {
    if (names.size() + name.size() > 1024) break;
    if (!names.empty()) names += ", ";
    for (const char c : name) names += c > 0x20 && c < 0x7f && c != ',' ? c : '?';
  }
  return {{"X-Penstock-Ignored", names}};
}

}  // namespace penstock
