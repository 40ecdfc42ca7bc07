// Every protocol's words for the same answers, told by a generator that computes nothing.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "server/api/anthropic.h"
#include "server/api/ollama.h"
#include "server/api/openai_chat.h"
#include "server/api/openai_responses.h"
#include "server/test_server.h"

namespace penstock {
namespace {

using namespace std::chrono_literals;

const std::vector<std::string> kThoughtAndCall = {"hm",
                                                  "\n</think>\n\n",
                                                  "Let me see.\n",
                                                  "<tool_call>\n<function=f>\n<parameter=a>\nx",
                                                  " y",
                                                  "\n</parameter>\n</function>\n</tool_call>"};

// A call that thinks, has one tool and streams; its tools are not compiled to a grammar here.
ChatCall call_of(bool streams) {
  ChatCall call;
  call.streams = streams;
  call.conversation.messages = Json::array({Json{{"role", "user"}, {"content", "hi"}}});
  call.conversation.tools = Json::array(
      {Json{{"type", "function"},
            {"function",
             {{"name", "f"}, {"parameters", {{"properties", {{"a", {{"type", "string"}}}}}}}}}}});
  call.generation.prompt = {104, 105};
  call.generation.opens_reasoning = true;
  return call;
}

template <class ProtocolReplier>
FakeExchange ask(const ChatCall& call, FakeGenerator::Script script) {
  FakeGenerator generator(std::move(script));
  FakeExchange exchange;
  ProtocolReplier replier;
  answer_call(exchange, generator, test_model(), call, replier);
  return exchange;
}

std::vector<std::string> types_of(const std::vector<Json>& events) {
  std::vector<std::string> types;
  for (const Json& event : events) {
    const auto type = event.at("type").get<std::string>();
    if (types.empty() || types.back() != type) types.push_back(type);
  }
  return types;
}

TEST(OpenAiChat, a_stream_tells_role_reasoning_content_call_and_end) {
  const FakeExchange exchange = ask<OpenAiChatReplier>(call_of(true), {.pieces = kThoughtAndCall});
  ASSERT_TRUE(exchange.streams && exchange.has_ended);
  std::vector<Json> events = exchange.events();
  EXPECT_EQ(events.back(), "[DONE]");
  events.pop_back();
  EXPECT_EQ(events[0]["choices"][0]["delta"], (Json{{"role", "assistant"}, {"content", ""}}));
  std::string reasoning, content, arguments, name;
  for (const Json& event : events) {
    const Json& delta = event["choices"][0]["delta"];
    reasoning += delta.value("reasoning_content", "");
    content += delta.value("content", "");
    if (!delta.contains("tool_calls")) continue;
    const Json& call = delta["tool_calls"][0];
    EXPECT_EQ(call["index"], 0);
    name += call["function"].value("name", "");
    arguments += call["function"].value("arguments", "");
  }
  EXPECT_EQ(reasoning, "hm");
  EXPECT_EQ(content, "Let me see.");
  EXPECT_EQ(name, "f");
  EXPECT_EQ(arguments, R"({"a":"x y"})");
  EXPECT_EQ(events.back()["choices"][0]["finish_reason"], "tool_calls");
}

TEST(OpenAiChat, silence_is_filled_with_chunks_that_change_nothing) {
  ChatCall call = call_of(true);
  call.ping_interval_ms = 20;
  const FakeExchange exchange =
      ask<OpenAiChatReplier>(call, {.pieces = {"</think>x"}, .before_prompt = 400ms});
  int heartbeats = 0;
  for (const Json& event : exchange.events()) {
    if (event.is_object() && event.contains("prompt_progress")) {
      ++heartbeats;
      EXPECT_EQ(event["choices"][0]["delta"], Json::object());
    }
  }
  EXPECT_GE(heartbeats, 2);
}

TEST(Heartbeats, are_events_of_each_protocol_that_change_nothing) {
  ChatCall call = call_of(true);
  call.ping_interval_ms = 20;
  const FakeGenerator::Script script{.pieces = {"</think>x"}, .before_prompt = 400ms};
  int pings = 0;
  for (const Json& event : ask<AnthropicReplier>(call, script).events()) {
    pings += event["type"] == "ping" ? 1 : 0;
  }
  EXPECT_GE(pings, 2);
  const std::vector<Json> events = ask<OpenAiResponseReplier>(call, script).events();
  int progresses = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i]["sequence_number"], i);
    progresses += events[i]["type"] == "response.in_progress" ? 1 : 0;
  }
  EXPECT_GE(progresses, 3);  // the first of them belongs to the beginning
  const std::string lines = ask<OllamaReplier>(call, script).answer.body;
  int empty = 0;
  for (size_t at = 0; at < lines.size(); at = lines.find('\n', at) + 1) {
    const Json line = *parse_json(lines.substr(at, lines.find('\n', at) - at), "line");
    empty += line["message"]["content"] == "" && line["done"] == false ? 1 : 0;
  }
  EXPECT_GE(empty, 2);
}

TEST(OpenAiChat, an_error_after_the_first_word_is_an_event_and_no_done) {
  const FakeExchange exchange = ask<OpenAiChatReplier>(
      call_of(true), {.pieces = {"a"}, .error = Error{ErrorCode::kIo, "layer 3 expert 4"}});
  const std::vector<Json> events = exchange.events();
  EXPECT_EQ(events.back()["error"]["message"], "layer 3 expert 4");
  EXPECT_TRUE(exchange.has_ended);
}

TEST(OpenAiChat, an_error_before_the_first_word_is_a_status) {
  const FakeExchange exchange = ask<OpenAiChatReplier>(
      call_of(false), {.pieces = {"a"}, .error = Error{ErrorCode::kIo, "layer 3 expert 4"}});
  EXPECT_EQ(exchange.answer.status, 500);
}

TEST(OpenAiChat, who_leaves_ends_the_request) {
  FakeGenerator generator({.pieces = {"a", "b", "c"}, .waits_for_cancel = true});
  FakeExchange exchange;
  exchange.leaves_after = 450;  // the first words are there, so it is being answered
  OpenAiChatReplier replier;
  const ChatCall call = call_of(true);
  answer_call(exchange, generator, test_model(), call, replier);
  for (int i = 0; i < 30000 && !generator.was_cancelled; ++i) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(generator.was_cancelled);
}

TEST(OpenAiChat, a_cut_call_is_closed_and_the_reason_is_the_length) {
  const FakeExchange exchange = ask<OpenAiChatReplier>(
      call_of(false), {.pieces = {"</think><tool_call>\n<function=f>\n<parameter=a>\nha"},
                       .reason = FinishReason::kLength});
  const Json choice = exchange.body()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], R"({"a":"ha"})");
}

TEST(OpenAiChat, tokens_are_told_once_and_in_order_where_they_are_asked_for) {
  ChatCall call = call_of(true);
  call.tells_tokens = true;
  std::vector<TokenId> streamed;
  for (const Json& event : ask<OpenAiChatReplier>(call, {.pieces = kThoughtAndCall}).events()) {
    if (!event.is_object() || event["choices"].empty()) continue;
    const Json* tokens = json_find(event["choices"][0], "tokens");
    if (tokens == nullptr) continue;
    for (const Json& id : *tokens) streamed.push_back(id.get<TokenId>());
  }
  EXPECT_EQ(streamed, (std::vector<TokenId>{1, 2, 3, 4, 5, 6}));
  call.streams = false;
  const Json whole = ask<OpenAiChatReplier>(call, {.pieces = kThoughtAndCall}).body();
  EXPECT_EQ(whole["choices"][0]["tokens"], Json(streamed));
}

TEST(OpenAiChat, half_an_answer_is_not_told_as_a_whole_one) {
  for (const bool streams : {false, true}) {
    FakeGenerator generator({.pieces = {"a", "b"}, .waits_for_cancel = true});
    FakeExchange exchange;
    exchange.leave();
    OpenAiChatReplier replier;
    const ChatCall call = call_of(streams);
    answer_call(exchange, generator, test_model(), call, replier);
    EXPECT_EQ(exchange.answer.status, streams ? 200 : 499);
    EXPECT_NE(exchange.answer.body.find("closed its side"), std::string::npos);
    EXPECT_EQ(exchange.answer.body.find("finish_reason\":\"stop"), std::string::npos);
  }
}

// Its requests have ended before anybody asks how they go.
class EndedGenerator : public Generator {
 public:
  explicit EndedGenerator(bool is_by_client) : is_by_client_(is_by_client) {}
  Submitted submit(GenerationRequest request) override {
    Submitted submitted = queue_.submit(std::move(request));
    const auto job = queue_.take({}, std::chrono::milliseconds(0));
    job->fail({ErrorCode::kCancelled, "over"}, is_by_client_);
    return submitted;
  }
  GeneratorFigures figures() const override { return {}; }
  SlotOutcome act(const SlotAction&) override { return {}; }
  void drain() override { queue_.drain(); }
  void stop() override { queue_.stop(); }

 private:
  const bool is_by_client_;
  GenerationQueue queue_{4};
};

// The generator may have noticed it before the answer does.
TEST(OpenAiChat, who_has_left_is_told_so_and_who_is_sent_away_by_a_shutdown_too) {
  for (const bool is_by_client : {true, false}) {
    EndedGenerator generator(is_by_client);
    FakeExchange exchange;
    exchange.leave();
    OpenAiChatReplier replier;
    answer_call(exchange, generator, test_model(), call_of(false), replier);
    EXPECT_EQ(exchange.answer.status, is_by_client ? 499 : 503);
  }
}

TEST(OpenAiChat, who_waits_for_a_whole_answer_may_hear_white_space) {
  ServedModel model = test_model();
  model.json_ping_interval_ms = 20;
  for (const bool fails : {false, true}) {
    FakeGenerator generator(
        {.pieces = {"</think>x"},
         .error = fails ? std::optional(Error{ErrorCode::kIo, "layer 3"}) : std::nullopt,
         .before_prompt = 400ms});
    FakeExchange exchange;
    OpenAiChatReplier replier;
    const ChatCall call = call_of(false);
    answer_call(exchange, generator, model, call, replier);
    ASSERT_TRUE(exchange.streams && exchange.has_ended);
    EXPECT_EQ(exchange.answer.content_type, "application/json");
    EXPECT_EQ(exchange.answer.body.substr(0, 2), "  ");
    const Json body = exchange.body();  // white space before JSON is part of JSON
    EXPECT_EQ(body.contains("error"), fails);
    if (!fails) {
      EXPECT_EQ(body["choices"][0]["message"]["content"], "x");
    }
  }
}

TEST(OpenAiResponses, a_stream_opens_and_closes_its_items_with_rising_numbers) {
  const FakeExchange exchange =
      ask<OpenAiResponseReplier>(call_of(true), {.pieces = kThoughtAndCall});
  const std::vector<Json> events = exchange.events();
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i]["sequence_number"], i);
  EXPECT_EQ(
      types_of(events),
      (std::vector<std::string>{
          "response.created", "response.in_progress", "response.output_item.added",
          "response.reasoning_text.delta", "response.reasoning_text.done",
          "response.output_item.done", "response.output_item.added", "response.content_part.added",
          "response.output_text.delta", "response.output_text.done", "response.content_part.done",
          "response.output_item.done", "response.output_item.added",
          "response.function_call_arguments.delta", "response.function_call_arguments.done",
          "response.output_item.done", "response.completed"}));
  const Json& output = events.back()["response"]["output"];
  ASSERT_EQ(output.size(), 3u);
  EXPECT_EQ(output[0]["content"][0]["text"], "hm");
  EXPECT_EQ(output[1]["content"][0]["text"], "Let me see.");
  EXPECT_EQ(output[2]["arguments"], R"({"a":"x y"})");
}

TEST(OpenAiResponses, items_become_messages) {
  const Json body = *parse_json(R"({"instructions": "be brief", "input": [
    {"type": "message", "role": "developer", "content": "be kind"},
    {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"a\": 1}"},
    {"type": "function_call_output", "call_id": "1", "output": "sunny"},
    {"type": "item_reference", "id": "x"}], "tools": [{"type": "web_search"}]})",
                                "body");
  const auto read = read_openai_response(body, test_model());
  const auto& call = std::get<ChatCall>(read);
  EXPECT_EQ(call.conversation.system, "be brief\n\nbe kind");
  const Json& messages = call.conversation.messages;
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[1]["reasoning_content"], "hm");
  EXPECT_EQ(messages[1]["tool_calls"][0]["function"]["arguments"], (Json{{"a", 1}}));
  EXPECT_EQ(messages[2], (Json{{"role", "tool"}, {"content", "sunny"}, {"tool_call_id", "1"}}));
  EXPECT_EQ(call.ignored,
            (std::vector<std::string>{"input[5].type=item_reference", "tools[0].type=web_search"}));
}

TEST(Anthropic, a_stream_opens_and_closes_its_blocks) {
  const FakeExchange exchange = ask<AnthropicReplier>(call_of(true), {.pieces = kThoughtAndCall});
  const std::vector<Json> events = exchange.events();
  EXPECT_EQ(
      types_of(events),
      (std::vector<std::string>{"message_start", "content_block_start", "content_block_delta",
                                "content_block_stop", "content_block_start", "content_block_delta",
                                "content_block_stop", "content_block_start", "content_block_delta",
                                "content_block_stop", "message_delta", "message_stop"}));
  int index = -1;
  std::string arguments;
  for (const Json& event : events) {
    if (event["type"] == "content_block_start") {
      EXPECT_EQ(event["index"], ++index);
    }
    if (event["type"] != "content_block_delta") continue;
    EXPECT_EQ(event["index"], index);
    arguments += event["delta"].value("partial_json", "");
  }
  EXPECT_EQ(arguments, R"({"a":"x y"})");
  EXPECT_EQ(events[events.size() - 2]["delta"]["stop_reason"], "tool_use");
}

TEST(Anthropic, results_of_tools_become_messages_of_their_own) {
  const Json body = *parse_json(
      R"({"max_tokens": 5, "system": [{"type": "text", "text": "x-anthropic-billing-header: 1"},
    {"type": "text", "text": "be brief"}], "messages": [
    {"role": "user", "content": "weather?"},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""},
      {"type": "text", "text": "ok"}, {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "sunny"}]},
      {"type": "text", "text": "and tomorrow?"}]}]})",
      "body");
  const auto read = read_anthropic(body, test_model());
  const auto& call = std::get<ChatCall>(read);
  EXPECT_EQ(call.conversation.system, "be brief");
  EXPECT_EQ(call.conversation.thinking, false);
  const Json& messages = call.conversation.messages;
  ASSERT_EQ(messages.size(), 4u);
  EXPECT_EQ(messages[1]["reasoning_content"], "hm");
  EXPECT_EQ(messages[2]["content"], "sunny");
  EXPECT_EQ(messages[3]["content"], "and tomorrow?");
}

TEST(Anthropic, a_format_is_obeyed_and_what_has_no_counterpart_is_named) {
  for (
      const char* format :
      {R"("output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"a": 1}}})",
       R"("output_config": {"effort": "low"},
           "output_format": {"type": "json_schema", "schema": {"a": 1}})"}) {
    const Json body = *parse_json(
        fmt::format(R"({{"max_tokens": 5, "messages": [{{"role": "user", "content": "x"}}], {},
                        "thinking": {{"type": "adaptive", "display": "omitted"}},
                        "container": null}})",
                    format),
        "body");
    const auto read = read_anthropic(body, test_model());
    ASSERT_TRUE(std::holds_alternative<ChatCall>(read)) << std::get<ApiError>(read).message;
    const auto& call = std::get<ChatCall>(read);
    EXPECT_EQ(call.conversation.thinking, true);
    EXPECT_EQ(call.schema, (Json{{"a", 1}}));
    EXPECT_EQ(call.ignored, (std::vector<std::string>{"thinking.display", "output_config.effort"}));
  }
  const Json wrong = *parse_json(
      R"({"max_tokens": 5, "messages": [{"role": "user", "content": "x"}],
          "output_config": {"format": {"type": "regex"}}})",
      "body");
  EXPECT_EQ(std::get<ApiError>(read_anthropic(wrong, test_model())).param,
            "output_config.format.type");
}

TEST(Anthropic, a_full_queue_is_529) {
  const HttpResponse response = error_response(
      Protocol::kAnthropic, api_error(SubmitError{SubmitError::Kind::kFull, "full", 7}));
  EXPECT_EQ(response.status, 529);
  EXPECT_EQ((*parse_json(response.body, "body"))["error"]["type"], "overloaded_error");
  EXPECT_EQ(response.headers[0].value, "7");
}

TEST(Ollama, a_stream_is_lines_and_a_call_is_whole) {
  const FakeExchange exchange = ask<OllamaReplier>(call_of(true), {.pieces = kThoughtAndCall});
  std::vector<Json> lines;
  for (size_t at = 0; at < exchange.answer.body.size();) {
    const size_t end = exchange.answer.body.find('\n', at);
    lines.push_back(*parse_json(exchange.answer.body.substr(at, end - at), "line"));
    at = end + 1;
  }
  std::string thinking, content;
  int calls = 0;
  for (const Json& line : lines) {
    thinking += line["message"].value("thinking", "");
    content += line["message"].value("content", "");
    if (!line["message"].contains("tool_calls")) continue;
    ++calls;
    EXPECT_EQ(line["message"]["tool_calls"][0]["function"]["arguments"], (Json{{"a", "x y"}}));
  }
  EXPECT_EQ(thinking, "hm");
  EXPECT_EQ(content, "Let me see.");
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(lines.back()["done"], true);
}

TEST(Ollama, settings_that_are_not_obeyed_are_named) {
  const Json body = *parse_json(
      R"({"model": "x", "messages": [{"role": "user", "content": "x"}], "keep_alive": "5m",
          "template": "y", "options": {"temperature": 0.5, "repeat_last_n": 64, "num_gpu": 1, "num_ctx": 4096,
          "mirostat": null}})",
      "body");
  const auto read = read_ollama_chat(body, test_model());
  const auto& call = std::get<ChatCall>(read);
  EXPECT_EQ(call.ignored,
            (std::vector<std::string>{"options.num_gpu", "options.num_ctx", "template"}));
  EXPECT_EQ(call.generation.sampling.repeat_last_n, 64);
  ServedModel strict = test_model();
  strict.refuses_unknown_fields = true;
  EXPECT_EQ(std::get<ApiError>(read_ollama_chat(body, strict)).param, "options.num_gpu");
}

TEST(GenerationQueue, who_leaves_is_refused_or_waited_too_long_is_counted_by_its_reason) {
  using Clock = GenerationJob::Clock;
  GenerationQueue queue(2, 1000ms);
  GenerationRequest request;
  request.prompt = {1};
  std::vector<std::unique_ptr<Generation>> waiting;
  for (int i = 0; i < 3; ++i) waiting.push_back(queue.submit(request).generation);
  queue.submit(request);
  EXPECT_EQ(queue.rejected().queue_full, 1u);
  waiting[1].reset();
  EXPECT_EQ(queue.cancelled().disconnect, 1u);  // before anybody has looked for the next
  EXPECT_EQ(queue.take({}, 0ms)->request().prompt, request.prompt);
  EXPECT_EQ(queue.cancelled().disconnect, 1u);
  queue.expire(Clock::now());
  EXPECT_EQ(queue.waiting(), 1);
  queue.expire(Clock::now() + 2s);
  EXPECT_EQ(queue.waiting(), 0);
  EXPECT_EQ(queue.rejected().queue_timeout, 1u);
  const auto event = waiting[2]->next(0ms);
  ASSERT_TRUE(event && event->error);
  EXPECT_EQ(api_error(*event->error).status, 503);
  waiting.push_back(queue.submit(request).generation);
  queue.drain();
  EXPECT_EQ(queue.cancelled().shutdown, 1u);
  EXPECT_EQ(queue.submit(request).error.kind, SubmitError::Kind::kDraining);
  EXPECT_EQ(queue.rejected().shutdown, 1u);
  EXPECT_EQ(queue.cancelled().disconnect, 1u);
}

TEST(GenerationQueue, who_waits_for_a_slot_lets_others_pass) {
  GenerationQueue queue(4);
  GenerationRequest request;
  request.prompt = {1};
  request.slot = 1;
  const auto first = queue.submit(request).generation;
  request.slot.reset();
  const auto second = queue.submit(request).generation;
  const auto is_free = [](const GenerationRequest& next) { return !next.slot; };
  EXPECT_FALSE(queue.take({}, 0ms, is_free)->request().slot.has_value());
  EXPECT_EQ(queue.take({}, 0ms, is_free), nullptr);
  EXPECT_EQ(first->progress().queue_position, 1);
  EXPECT_EQ(queue.take({}, 0ms)->request().slot, 1);
}

TEST(GenerationQueue, what_is_over_the_bound_is_refused_and_positions_are_told) {
  GenerationQueue queue(2);
  std::vector<std::unique_ptr<Generation>> waiting;
  GenerationRequest request;
  request.prompt = {1};
  for (int i = 0; i < 3; ++i) {  // one of them would begin at once
    auto submitted = queue.submit(request);
    ASSERT_NE(submitted.generation, nullptr);
    waiting.push_back(std::move(submitted.generation));
  }
  const auto refused = queue.submit(request);
  EXPECT_EQ(refused.generation, nullptr);
  EXPECT_EQ(refused.error.kind, SubmitError::Kind::kFull);
  EXPECT_GE(refused.error.retry_after_s, 1);
  EXPECT_EQ(waiting[2]->progress().queue_position, 3);
  waiting[0].reset();  // its client has left
  const auto job = queue.take({}, 0ms);
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(waiting[2]->progress().queue_position, 1);
  queue.drain();
  const auto event = waiting[2]->next(0ms);
  ASSERT_TRUE(event && event->error);
  EXPECT_EQ(event->error->code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace penstock
