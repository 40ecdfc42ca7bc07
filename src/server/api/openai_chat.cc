#include "server/api/openai_chat.h"

#include <fmt/format.h>

#include "server/api/messages.h"
#include "server/api/openai_words.h"
#include "server/api/sampling_fields.h"

namespace penstock {
namespace {

constexpr size_t kFormatBytesMax = 256 << 10;

// {"type": "function", "function": {"name": ...}}
std::optional<std::string> named_tool(Fields& fields, const Json& choice) {
  const Json* function = json_find(choice, "function");
  const Json* name = function != nullptr ? json_find(*function, "name") : nullptr;
  if (name != nullptr && name->is_string()) return name->get<std::string>();
  fields.refuse("tool_choice",
                "\"tool_choice\" must be auto, none, required, or "
                "{\"type\": \"function\", \"function\": {\"name\": ...}}");
  return std::nullopt;
}

void read_logprobs(Fields& fields, GenerationRequest& request) {
  const auto wanted = fields.boolean("logprobs");
  const auto top = fields.integer("top_logprobs", 0, kTopLogprobsMax);
  if (top && !wanted.value_or(false)) {
    fields.refuse("top_logprobs", "\"top_logprobs\" needs \"logprobs\": true");
  }
  if (wanted.value_or(false)) request.logprobs = static_cast<int>(top.value_or(0));
}

// OpenAI's response_format, and llama.cpp's names for the same.
void read_response_format(Fields& fields, ChatCall& call) {
  if (const auto grammar = fields.text("grammar", kFormatBytesMax)) call.grammar = *grammar;
  if (const Json* schema = fields.object("json_schema")) {
    call.schema = *schema;
    call.format_field = "json_schema";
  }
  const Json* format = fields.object("response_format");
  if (format == nullptr) return;
  call.format_field = "response_format";
  Fields inner(*format, "response_format.");
  const auto type = inner.choice("type", {"text", "json_object", "json_schema"});
  const Json* schema = inner.object("schema");  // llama.cpp's place for it
  if (const Json* wrapped = inner.object("json_schema")) {
    Fields named(*wrapped, "response_format.json_schema.");
    named.pass_over({"name", "description", "strict"});
    if (const Json* given = named.object("schema")) schema = given;
    name_unknown(named, call);
    if (named.error()) inner.refuse(*named.error());
  }
  if (!type) inner.refuse("type", "\"response_format.type\" is missing");
  if (type == "json_object") call.schema = schema != nullptr ? *schema : Json(true);
  if (type == "json_schema" && schema == nullptr) {
    inner.refuse("json_schema", "\"response_format.json_schema.schema\" is missing");
  }
  if (type == "json_schema" && schema != nullptr) call.schema = *schema;
  name_unknown(inner, call);
  if (inner.error()) return fields.refuse(*inner.error());
  if (call.schema && !call.grammar.empty()) {
    fields.refuse("grammar", "\"grammar\" and a JSON schema do not go together");
  }
}

// Continues the last assistant message in place of beginning a new one.
void read_continuation(Fields& fields, ChatCall& call) {
  const bool continues = fields.boolean("continue_final_message").value_or(false);
  const auto adds = fields.boolean("add_generation_prompt");
  if (!continues) {
    if (adds && !*adds) {
      fields.refuse("add_generation_prompt",
                    "\"add_generation_prompt\": false goes with "
                    "\"continue_final_message\": true only");
    }
    return;
  }
  if (adds.value_or(false)) {
    fields.refuse("add_generation_prompt",
                  "\"continue_final_message\": true goes with "
                  "\"add_generation_prompt\": false only");
  }
  const Json& messages = call.conversation.messages;
  if (messages.empty() || messages.back()["role"] != "assistant") {
    fields.refuse("continue_final_message",
                  "the last message must be the assistant's to be "
                  "continued");
  }
  call.conversation.continues_last = true;
}

constexpr std::string_view kChatChunk = "chat.completion.chunk";  // the kind of object

Json chat_chunk(const ReplyState& reply, Json choices) {
  return openai_chunk(reply, kChatChunk, std::move(choices));
}

Json logprobs_json(const ReplyState& reply, const std::vector<ReplyToken>& tokens) {
  if (!reply.call.generation.logprobs) return nullptr;
  Json content = Json::array();
  for (const ReplyToken& token : tokens) {
    content.push_back(logprob_json(reply.model, token, *reply.call.generation.logprobs > 0));
  }
  return Json{{"content", std::move(content)}, {"refusal", nullptr}};
}

Json chat_choice(int index, Json delta) {
  return Json{{"index", index},
              {"delta", std::move(delta)},
              {"logprobs", nullptr},
              {"finish_reason", nullptr}};
}

void set_reasoning(const ServedModel& model, const std::string& text, Json& message) {
  if (model.tells_reasoning) message["reasoning_content"] = text;
  if (model.tells_reasoning_short) message["reasoning"] = text;
}

Json delta_json(const ReplyState& reply, const ReplyDelta& delta) {
  Json json = Json::object();
  switch (delta.kind) {
    case ReplyDelta::Kind::kReasoning: set_reasoning(reply.model, delta.text, json); break;
    case ReplyDelta::Kind::kContent: json["content"] = delta.text; break;
    case ReplyDelta::Kind::kCallBegin:
      json["tool_calls"] =
          Json::array({Json{{"index", delta.call},
                            {"id", delta.id},
                            {"type", "function"},
                            {"function", {{"name", delta.name}, {"arguments", ""}}}}});
      break;
    case ReplyDelta::Kind::kCallArguments:
      json["tool_calls"] =
          Json::array({Json{{"index", delta.call}, {"function", {{"arguments", delta.text}}}}});
      break;
    case ReplyDelta::Kind::kCallEnd: break;
  }
  return json;
}

Json message_json(const ReplyState& reply, const ReplyChoice& choice) {
  Json message{{"role", "assistant"}, {"content", choice.content}};
  if (choice.content.empty() && !choice.calls.empty()) message["content"] = nullptr;
  if (!choice.reasoning.empty()) set_reasoning(reply.model, choice.reasoning, message);
  if (!choice.calls.empty()) {
    message["tool_calls"] = Json::array();
    for (const ReplyCall& call : choice.calls) {
      message["tool_calls"].push_back(
          Json{{"id", call.id},
               {"type", "function"},
               {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
  }
  return message;
}

}  // namespace

std::variant<ChatCall, ApiError> read_openai_chat(const Json& body, const ServedModel& model) {
  Fields fields(body);
  ChatCall call;
  call.conversation.messages = read_messages(fields);
  call.conversation.tools = read_tools(fields);
  read_tool_choice(fields, call, [&](const Json& choice) { return named_tool(fields, choice); });
  read_sampling(fields, model, call.generation);
  read_max_tokens(fields, {"max_tokens", "max_completion_tokens", "n_predict"}, model,
                  call.generation);
  read_logprobs(fields, call.generation);
  read_thinking(fields, model, call);
  read_continuation(fields, call);
  read_response_format(fields, call);
  read_reply_options(fields, model, call);
  finish_reading(fields, model, call);
  if (fields.error()) return *fields.error();
  return call;
}

std::string OpenAiChatReplier::begin(const ReplyState& reply) {
  std::string words;
  for (int i = 0; i < reply.call.generation.num_choices; ++i) {
    Json chunk = chat_chunk(
        reply, Json::array({chat_choice(i, Json{{"role", "assistant"}, {"content", ""}})}));
    chunk["seed"] = reply.call.generation.sampling.seed;
    words += sse(chunk);
  }
  return words;
}

// A chunk that changes nothing: clients count only events that they can parse.
std::string OpenAiChatReplier::heartbeat(const ReplyState& reply) {
  Json chunk = chat_chunk(reply, Json::array({chat_choice(0, Json::object())}));
  if (reply.progress.queue_position > 0) {
    chunk["queue_position"] = reply.progress.queue_position;
  } else if (reply.progress.processed_tokens < reply.progress.prompt_tokens) {
    chunk["prompt_progress"] = progress_json(reply.progress);
  }
  return sse(chunk);
}

std::string OpenAiChatReplier::prompt_progress(const ReplyState& reply) {
  if (!reply.call.tells_progress) return "";
  Json chunk = chat_chunk(reply, Json::array({chat_choice(0, Json::object())}));
  chunk["prompt_progress"] = progress_json(reply.progress);
  return sse(chunk);
}

std::string OpenAiChatReplier::delta(const ReplyState& reply, int index, const ReplyDelta& delta) {
  if (delta.kind == ReplyDelta::Kind::kCallEnd) return "";
  Json choice = chat_choice(index, delta_json(reply, delta));
  if (!reply.new_tokens.empty()) choice["logprobs"] = logprobs_json(reply, reply.new_tokens);
  if (reply.call.tells_tokens) choice["tokens"] = reply.new_ids;
  Json chunk = chat_chunk(reply, Json::array({std::move(choice)}));
  if (reply.call.tells_timings_per_token) chunk["timings"] = timings_of(reply.progress);
  return sse(chunk);
}

std::string OpenAiChatReplier::end_choice(const ReplyState& reply, int index) {
  Json choice = chat_choice(index, Json::object());
  if (!reply.new_tokens.empty()) choice["logprobs"] = logprobs_json(reply, reply.new_tokens);
  if (reply.call.tells_tokens) choice["tokens"] = reply.new_ids;
  choice["finish_reason"] = finish_word(reply.choice(index));
  Json chunk = chat_chunk(reply, Json::array({std::move(choice)}));
  if (index + 1 == reply.call.generation.num_choices) {
    chunk["timings"] = timings_of(reply.progress);
    chunk["seed"] = reply.call.generation.sampling.seed;
  }
  return sse(chunk);
}

std::string OpenAiChatReplier::end(const ReplyState& reply) {
  return openai_end(reply, kChatChunk);
}

std::string OpenAiChatReplier::error(const ReplyState&, const ApiError& error) {
  return sse(error_json(protocol(), error));
}

Json OpenAiChatReplier::whole(const ReplyState& reply) {
  Json choices = Json::array();
  for (int i = 0; i < reply.call.generation.num_choices; ++i) {
    const ReplyChoice& choice = reply.choice(i);
    choices.push_back(Json{{"index", i},
                           {"message", message_json(reply, choice)},
                           {"logprobs", logprobs_json(reply, choice.tokens)},
                           {"finish_reason", finish_word(choice)}});
    if (reply.call.tells_tokens) choices.back()["tokens"] = choice.ids;
  }
  return openai_whole(reply, "chat.completion", std::move(choices));
}

}  // namespace penstock
