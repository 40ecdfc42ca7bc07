#include "server/api/anthropic.h"

#include <fmt/format.h>

#include "server/api/messages.h"
#include "server/api/sampling_fields.h"

namespace penstock {
namespace {

constexpr std::string_view kBillingLine = "x-anthropic-billing-header";

std::string without_billing_line(const std::string& text) {
  if (!text.starts_with(kBillingLine)) return text;
  const size_t end = text.find('\n');
  return end == std::string::npos ? "" : text.substr(end + 1);
}

std::string block_type(const Json& block) {
  const Json* type = json_find(block, "type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : "";
}

// "system": text, or a list of text blocks.
std::string read_system(Fields& fields) {
  const Json* system = fields.any("system");
  if (system == nullptr) return "";
  if (system->is_string()) return without_billing_line(system->get<std::string>());
  std::string text;
  if (!system->is_array()) {
    fields.refuse("system", "\"system\" must be a text or a list of text blocks");
    return text;
  }
  for (const Json& block : *system) {
    const Json* piece = json_find(block, "text");
    if (block_type(block) != "text" || piece == nullptr || !piece->is_string()) {
      fields.refuse("system", "\"system\" must be a text or a list of text blocks");
      return text;
    }
    const std::string more = without_billing_line(piece->get<std::string>());
    if (!text.empty() && !more.empty()) text += "\n\n";
    text += more;
  }
  return text;
}

// The blocks of an assistant's message.
Json assistant_message(Fields& fields, const Json& blocks, const std::string& path) {
  std::string text, thinking;
  Json calls = Json::array();
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Json& block = blocks[i];
    const std::string type = block_type(block);
    if (type == "text") {
      text += text_of(block, "text");
    } else if (type == "thinking") {
      thinking += text_of(block, "thinking");
    } else if (type == "tool_use") {
      const Json* input = json_find(block, "input");
      calls.push_back(Json{
          {"id", text_of(block, "id")},
          {"type", "function"},
          {"function",
           {{"name", text_of(block, "name")},
            {"arguments", input != nullptr && input->is_object() ? *input : Json::object()}}}});
    } else if (type != "redacted_thinking") {
      fields.refuse(
          ApiError{.message = fmt::format("{}.content.{}: a block of type \"{}\" is not supported",
                                          path, i, type.substr(0, 64)),
                   .param = path});
    }
  }
  Json message{{"role", "assistant"}, {"content", text}};
  if (!thinking.empty()) message["reasoning_content"] = thinking;
  if (!calls.empty()) message["tool_calls"] = std::move(calls);
  return message;
}

std::string result_text(Fields& fields, const Json& block, const std::string& path) {
  return read_content(fields, json_find(block, "content"), path + ".content");
}

// The blocks of a user's message: results of tools become messages of their own.
void append_user_blocks(Fields& fields, const Json& blocks, const std::string& path,
                        Json& messages) {
  std::string text;
  bool has_text = false;
  for (size_t i = 0; i < blocks.size() && fields.is_good(); ++i) {
    const Json& block = blocks[i];
    const std::string type = block_type(block);
    const std::string name = fmt::format("{}.content.{}", path, i);
    if (type == "text") {
      if (has_text) text += "\n";
      text += text_of(block, "text");
      has_text = true;
    } else if (type == "tool_result") {
      messages.push_back(Json{{"role", "tool"},
                              {"content", result_text(fields, block, name)},
                              {"tool_call_id", text_of(block, "tool_use_id")}});
    } else {
      fields.refuse(ApiError{.message = fmt::format("{}: a block of type \"{}\" is not supported; "
                                                    "this server takes text only",
                                                    name, type.substr(0, 64)),
                             .param = name});
    }
  }
  if (has_text) messages.push_back(Json{{"role", "user"}, {"content", text}});
}

Json read_anthropic_messages(Fields& fields) {
  Json messages = Json::array();
  const Json* list = fields.array("messages", kMessagesMax);
  if (list == nullptr || list->empty()) {
    fields.refuse("messages", "messages: at least one message is required");
    return messages;
  }
  for (size_t i = 0; i < list->size() && fields.is_good(); ++i) {
    const std::string path = fmt::format("messages.{}", i);
    Fields message((*list)[i], path + ".");
    const auto role = message.choice("role", {"user", "assistant"});
    if (!role) message.refuse("role", fmt::format("{}.role: is missing", path));
    const Json* content = message.any("content");
    if (content == nullptr) message.refuse("content", fmt::format("{}.content: is missing", path));
    if (message.is_good() && content->is_string()) {
      messages.push_back(Json{{"role", *role}, {"content", *content}});
    } else if (message.is_good() && !content->is_array()) {
      message.refuse("content",
                     fmt::format("{}.content: must be a text or a list of blocks", path));
    } else if (message.is_good() && role == "assistant") {
      messages.push_back(assistant_message(message, *content, path));
    } else if (message.is_good()) {
      append_user_blocks(message, *content, path, messages);
    }
    if (message.error()) fields.refuse(*message.error());
  }
  return messages;
}

// Tools of the client; those that Anthropic's own servers run are named in `ignored`.
Json read_anthropic_tools(Fields& fields, ChatCall& call) {
  Json tools = Json::array();
  const Json* list = fields.array("tools", kOfferedToolsMax);
  if (list == nullptr) return Json();
  if (to_text(*list).size() > kOfferedToolsBytesMax) {
    fields.refuse("tools", "tools: must be at most 1 MiB of JSON together");
  }
  for (size_t i = 0; i < list->size() && fields.is_good(); ++i) {
    Fields tool((*list)[i], fmt::format("tools.{}.", i));
    const auto type = tool.text("type", 256);
    if (type && *type != "custom") {
      call.ignored.push_back(fmt::format("tools.{}.type={}", i, *type));
      continue;
    }
    const auto name = tool.text("name", 256);
    if (!name || name->empty()) tool.refuse("name", fmt::format("tools.{}.name: is missing", i));
    const auto description = tool.text("description");
    const Json* schema = tool.object("input_schema");
    if (tool.error()) {
      fields.refuse(*tool.error());
      break;
    }
    Json function{{"name", *name}};
    if (description) function["description"] = *description;
    function["parameters"] = schema != nullptr ? *schema : Json{{"type", "object"}};
    tools.push_back(Json{{"type", "function"}, {"function", std::move(function)}});
  }
  return tools.empty() ? Json() : tools;
}

void read_anthropic_choice(Fields& fields, ChatCall& call) {
  const Json* given = fields.object("tool_choice");
  if (given == nullptr) return;
  Fields choice(*given, "tool_choice.");
  const auto type = choice.choice("type", {"auto", "any", "tool", "none"});
  const auto name = choice.text("name", 256);
  call.parallel_calls = !choice.boolean("disable_parallel_tool_use").value_or(false);
  if (type == "none") call.tool_choice = CallChoice::kNever;
  if (type == "any") call.tool_choice = CallChoice::kRequired;
  if (type == "tool") {
    call.tool_choice = CallChoice::kNamed;
    call.tool_name = name.value_or("");
    if (find_tool(call.conversation.tools, call.tool_name) == nullptr) {
      choice.refuse("name",
                    fmt::format("tool_choice.name: there is no tool \"{}\"", call.tool_name));
    }
  }
  if (type == "any" && !call.has_tools()) {
    choice.refuse("type", "tool_choice.type: \"any\" needs tools");
  }
  if (choice.error()) fields.refuse(*choice.error());
}

void read_anthropic_thinking(Fields& fields, const ServedModel& model, ChatCall& call) {
  call.conversation.thinking = model.thinking.value_or(false);
  call.generation.reasoning_budget = model.reasoning_budget;
  const Json* given = fields.object("thinking");
  if (given == nullptr) return;
  Fields thinking(*given, "thinking.");
  const auto type = thinking.choice("type", {"enabled", "disabled", "adaptive"});
  if (type) call.conversation.thinking = *type != "disabled";
  if (const auto budget = thinking.integer("budget_tokens", 1, INT32_MAX)) {
    call.generation.reasoning_budget = *budget;
  }
  name_unknown(thinking, call);
  if (thinking.error()) fields.refuse(*thinking.error());
}

// {"type": "json_schema", "schema": ...}: what the answer has to be.
void read_format(Fields& fields, std::string_view member, const std::string& name, ChatCall& call) {
  const Json* given = fields.object(member);
  if (given == nullptr) return;
  Fields format(*given, name + ".");
  const auto type = format.choice("type", {"json_schema"});
  const Json* schema = format.object("schema");
  if (!type) format.refuse("type", fmt::format("{}.type: is missing", name));
  if (schema == nullptr) format.refuse("schema", fmt::format("{}.schema: is missing", name));
  name_unknown(format, call);
  if (format.error()) return fields.refuse(*format.error());
  call.schema = *schema;
  call.format_field = name;
}

// output_config.format, and its earlier place. "effort" has no counterpart here and is named.
void read_anthropic_format(Fields& fields, ChatCall& call) {
  read_format(fields, "output_format", "output_format", call);
  const Json* given = fields.object("output_config");
  if (given == nullptr) return;
  Fields config(*given, "output_config.");
  read_format(config, "format", "output_config.format", call);
  name_unknown(config, call);
  if (config.error()) fields.refuse(*config.error());
}

ChatCall read_prompt_fields(Fields& fields, const ServedModel& model) {
  ChatCall call;
  call.conversation.messages = read_anthropic_messages(fields);
  if (const std::string system = read_system(fields); !system.empty()) {
    call.conversation.system = system;
  }
  call.conversation.tools = read_anthropic_tools(fields, call);
  read_anthropic_choice(fields, call);
  read_anthropic_thinking(fields, model, call);
  const Json& messages = call.conversation.messages;
  call.conversation.continues_last = !messages.empty() && messages.back()["role"] == "assistant" &&
                                     !messages.back().contains("tool_calls");
  return call;
}

Json usage_of(const ReplyState& reply) {
  const GenerationProgress& progress = reply.progress;
  return Json{{"input_tokens", progress.prompt_tokens - progress.cached_tokens},
              {"cache_creation_input_tokens", 0},
              {"cache_read_input_tokens", progress.cached_tokens},
              {"output_tokens", progress.answer_tokens}};
}

std::string_view stop_reason(const ReplyChoice& choice) {
  if (choice.reason == FinishReason::kLength) return "max_tokens";
  if (!choice.calls.empty()) return "tool_use";
  return choice.stop_string.empty() ? "end_turn" : "stop_sequence";
}

Json stop_sequence(const ReplyChoice& choice) {
  return choice.stop_string.empty() ? Json() : Json(choice.stop_string);
}

Json message_json(const ReplyState& reply) {
  return Json{{"id", reply.id},           {"type", "message"},        {"role", "assistant"},
              {"model", reply.model.id},  {"content", Json::array()}, {"stop_reason", nullptr},
              {"stop_sequence", nullptr}, {"usage", usage_of(reply)}};
}

}  // namespace

std::variant<ChatCall, ApiError> read_anthropic(const Json& body, const ServedModel& model) {
  Fields fields(body);
  ChatCall call = read_prompt_fields(fields, model);
  read_sampling(fields, model, call.generation);
  read_max_tokens(fields, {"max_tokens"}, model, call.generation);
  read_stop(fields, "stop_sequences", call.generation);
  if (!fields.has("max_tokens")) fields.refuse("max_tokens", "max_tokens: Field required");
  if (fields.has("n")) fields.refuse("n", "n: Extra inputs are not permitted");
  call.streams = fields.boolean("stream").value_or(false);
  call.ping_interval_ms = model.ping_interval_ms;
  read_anthropic_format(fields, call);
  finish_reading(fields, model, call);
  if (fields.error()) return *fields.error();
  return call;
}

std::variant<Json, ApiError> count_anthropic_tokens(const Json& body, const ServedModel& model) {
  Fields fields(body);
  ChatCall call = read_prompt_fields(fields, model);
  if (fields.error()) return *fields.error();
  if (const auto error = prepare(model, call)) return *error;
  return Json{{"input_tokens", call.generation.prompt.size()}};
}

std::string AnthropicReplier::open(std::string_view type, Json block) {
  std::string words = open_type_ == type && type != "tool_use" ? "" : close();
  if (!open_type_.empty()) return words;
  open_type_ = type;
  ++block_;
  return words + sse("content_block_start", Json{{"type", "content_block_start"},
                                                 {"index", block_},
                                                 {"content_block", std::move(block)}});
}

std::string AnthropicReplier::close() {
  if (open_type_.empty()) return "";
  std::string words;
  if (open_type_ == "thinking") {
    words = sse("content_block_delta",
                Json{{"type", "content_block_delta"},
                     {"index", block_},
                     {"delta", {{"type", "signature_delta"}, {"signature", ""}}}});
  }
  open_type_.clear();
  return words + sse("content_block_stop", Json{{"type", "content_block_stop"}, {"index", block_}});
}

std::string AnthropicReplier::begin(const ReplyState& reply) {
  return sse("message_start", Json{{"type", "message_start"}, {"message", message_json(reply)}});
}

std::string AnthropicReplier::heartbeat(const ReplyState& reply) {
  Json ping{{"type", "ping"}};
  if (reply.progress.queue_position > 0) {
    ping["queue_position"] = reply.progress.queue_position;
  } else if (reply.progress.processed_tokens < reply.progress.prompt_tokens) {
    ping["prompt_progress"] = progress_json(reply.progress);
  }
  return sse("ping", ping);
}

std::string AnthropicReplier::delta(const ReplyState&, int, const ReplyDelta& delta) {
  std::string words;
  Json change;
  switch (delta.kind) {
    case ReplyDelta::Kind::kReasoning:
      words = open("thinking", Json{{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
      change = Json{{"type", "thinking_delta"}, {"thinking", delta.text}};
      break;
    case ReplyDelta::Kind::kContent:
      words = open("text", Json{{"type", "text"}, {"text", ""}});
      change = Json{{"type", "text_delta"}, {"text", delta.text}};
      break;
    case ReplyDelta::Kind::kCallBegin:
      return open("tool_use", Json{{"type", "tool_use"},
                                   {"id", delta.id},
                                   {"name", delta.name},
                                   {"input", Json::object()}});
    case ReplyDelta::Kind::kCallArguments:
      change = Json{{"type", "input_json_delta"}, {"partial_json", delta.text}};
      break;
    case ReplyDelta::Kind::kCallEnd: return close();
  }
  return words + sse("content_block_delta", Json{{"type", "content_block_delta"},
                                                 {"index", block_},
                                                 {"delta", std::move(change)}});
}

std::string AnthropicReplier::end_choice(const ReplyState& reply, int index) {
  const ReplyChoice& choice = reply.choice(index);
  return close() + sse("message_delta", Json{{"type", "message_delta"},
                                             {"delta",
                                              {{"stop_reason", stop_reason(choice)},
                                               {"stop_sequence", stop_sequence(choice)}}},
                                             {"usage", usage_of(reply)}});
}

std::string AnthropicReplier::end(const ReplyState&) {
  return sse("message_stop", Json{{"type", "message_stop"}});
}

std::string AnthropicReplier::error(const ReplyState&, const ApiError& error) {
  return sse("error", error_json(protocol(), error));
}

Json AnthropicReplier::whole(const ReplyState& reply) {
  const ReplyChoice& choice = reply.choice(0);
  Json message = message_json(reply);
  Json& content = message["content"];
  if (!choice.reasoning.empty()) {
    content.push_back(
        Json{{"type", "thinking"}, {"thinking", choice.reasoning}, {"signature", ""}});
  }
  if (!choice.content.empty()) {
    content.push_back(Json{{"type", "text"}, {"text", choice.content}});
  }
  for (const ReplyCall& call : choice.calls) {
    const Result<Json> input = parse_json(call.arguments, "arguments");
    content.push_back(Json{{"type", "tool_use"},
                           {"id", call.id},
                           {"name", call.name},
                           {"input", input ? *input : Json::object()}});
  }
  message["stop_reason"] = stop_reason(choice);
  message["stop_sequence"] = stop_sequence(choice);
  return message;
}

}  // namespace penstock
