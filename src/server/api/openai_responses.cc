#include "server/api/openai_responses.h"

#include <fmt/format.h>

#include "server/api/messages.h"
#include "server/api/sampling_fields.h"

namespace penstock {
namespace {

// Turns items into messages of a chat, one after the other.
class ItemReader {
 public:
  ItemReader(Fields& fields, ChatCall& call) : fields_(fields), call_(call) {}

  void read(const Json& item, size_t index) {
    const std::string path = fmt::format("input[{}]", index);
    const std::string type = text_of(item, "type");
    if (type.empty() || type == "message") return read_message(item, path);
    if (type == "function_call") return read_call(item, path);
    if (type == "function_call_output") return read_output(item, path);
    if (type == "reasoning") return read_reasoning(item);
    call_.ignored.push_back(fmt::format("{}.type={}", path, type.substr(0, 64)));
  }

 private:
  Json& messages() { return call_.conversation.messages; }

  // The assistant's message that reasoning and calls belong to.
  Json& assistant() {
    if (messages().empty() || messages().back()["role"] != "assistant") {
      messages().push_back(Json{{"role", "assistant"}, {"content", ""}});
    }
    if (!reasoning_.empty()) messages().back()["reasoning_content"] = std::exchange(reasoning_, "");
    return messages().back();
  }

  void read_message(const Json& given, const std::string& path) {
    Fields message(given, path + ".");
    const auto role = message.choice("role", {"user", "assistant", "system", "developer"});
    if (!role) message.refuse("role", fmt::format("\"{}.role\" is missing", path));
    const std::string text =
        message.is_good() ? read_content(message, message.any("content"), path + ".content") : "";
    if (message.error()) return fields_.refuse(*message.error());
    if (role == "system" || role == "developer") {
      std::string& system = call_.conversation.system;
      system += (system.empty() ? "" : "\n\n") + text;
    } else if (role == "assistant") {
      const bool begins = messages().empty() || messages().back()["role"] != "assistant" ||
                          messages().back().contains("tool_calls");
      if (begins) messages().push_back(Json{{"role", "assistant"}, {"content", ""}});
      auto& content = assistant()["content"].get_ref<std::string&>();
      content += text;
    } else {
      messages().push_back(Json{{"role", "user"}, {"content", text}});
    }
  }

  void read_call(const Json& item, const std::string& path) {
    const Result<Json> arguments = parse_json(text_of(item, "arguments"), path + ".arguments");
    const bool is_empty = text_of(item, "arguments").empty();
    if (!is_empty && (!arguments || !arguments->is_object())) {
      return fields_.refuse(ApiError{
          .message = fmt::format("\"{}.arguments\" must be the JSON text of an object", path),
          .param = path + ".arguments"});
    }
    Json& message = assistant();
    if (!message.contains("tool_calls")) message["tool_calls"] = Json::array();
    message["tool_calls"].push_back(
        Json{{"id", text_of(item, "call_id")},
             {"type", "function"},
             {"function",
              {{"name", text_of(item, "name")},
               {"arguments", is_empty ? Json::object() : *arguments}}}});
  }

  void read_output(const Json& item, const std::string& path) {
    const std::string text = read_content(fields_, json_find(item, "output"), path + ".output");
    messages().push_back(
        Json{{"role", "tool"}, {"content", text}, {"tool_call_id", text_of(item, "call_id")}});
  }

  void read_reasoning(const Json& item) {
    for (const char* member : {"content", "summary"}) {
      const Json* parts = json_find(item, member);
      if (parts == nullptr || !parts->is_array() || parts->empty()) continue;
      for (const Json& part : *parts) reasoning_ += text_of(part, "text");
      return;
    }
  }

  Fields& fields_;
  ChatCall& call_;
  std::string reasoning_;  // belongs to the assistant's message that follows
};

void read_input(Fields& fields, ChatCall& call) {
  call.conversation.system = fields.text("instructions").value_or("");
  const Json* input = fields.any("input");
  if (input == nullptr) return fields.refuse("input", "\"input\" is missing");
  if (input->is_string()) {
    call.conversation.messages.push_back(Json{{"role", "user"}, {"content", *input}});
    return;
  }
  if (!input->is_array() || input->empty() || input->size() > kMessagesMax) {
    return fields.refuse(
        "input", fmt::format("\"input\" must be a text or a list of 1 to {} items", kMessagesMax));
  }
  ItemReader reader(fields, call);
  for (size_t i = 0; i < input->size() && fields.is_good(); ++i) reader.read((*input)[i], i);
}

// Functions stand flat here, beside kinds of tools that run at OpenAI.
void read_flat_tools(Fields& fields, ChatCall& call) {
  const Json* list = fields.array("tools", kOfferedToolsMax);
  if (list == nullptr) return;
  if (to_text(*list).size() > kOfferedToolsBytesMax) {
    fields.refuse("tools", "\"tools\" must be at most 1 MiB of JSON together");
  }
  Json tools = Json::array();
  for (size_t i = 0; i < list->size() && fields.is_good(); ++i) {
    const Json& given = (*list)[i];
    const std::string type = text_of(given, "type");
    if (type != "function") {
      call.ignored.push_back(fmt::format("tools[{}].type={}", i, type.substr(0, 64)));
      continue;
    }
    Fields tool(given, fmt::format("tools[{}].", i));
    const auto name = tool.text("name", 256);
    if (!name || name->empty()) {
      tool.refuse("name", fmt::format("\"tools[{}].name\" must be a name", i));
    }
    Json function{{"name", name.value_or("")}};
    if (const auto description = tool.text("description")) function["description"] = *description;
    if (const Json* parameters = tool.object("parameters")) function["parameters"] = *parameters;
    if (tool.error()) return fields.refuse(*tool.error());
    tools.push_back(Json{{"type", "function"}, {"function", std::move(function)}});
  }
  if (!tools.empty()) call.conversation.tools = std::move(tools);
}

// {"type": "function", "name": ...}
std::optional<std::string> named_tool(ChatCall& call, const Json& choice) {
  if (text_of(choice, "type") == "function") return text_of(choice, "name");
  call.ignored.push_back("tool_choice.type");
  return std::nullopt;
}

void read_text_format(Fields& fields, ChatCall& call) {
  const Json* text = fields.object("text");
  if (text == nullptr) return;
  Fields inner(*text, "text.");
  if (const Json* format = inner.object("format")) {
    Fields chosen(*format, "text.format.");
    const auto type = chosen.choice("type", {"text", "json_object", "json_schema"});
    const Json* schema = chosen.object("schema");
    call.format_field = "text.format";
    if (type == "json_object") call.schema = Json(true);
    if (type == "json_schema" && schema != nullptr) call.schema = *schema;
    if (type == "json_schema" && schema == nullptr) {
      chosen.refuse("schema", "\"text.format.schema\" is missing");
    }
    chosen.pass_over({"name", "description", "strict"});
    name_unknown(chosen, call);
    if (chosen.error()) inner.refuse(*chosen.error());
  }
  name_unknown(inner, call);
  if (inner.error()) fields.refuse(*inner.error());
}

void read_reasoning_options(Fields& fields, const ServedModel& model, ChatCall& call) {
  call.conversation.thinking = model.thinking;
  call.generation.reasoning_budget = model.reasoning_budget;
  const Json* reasoning = fields.object("reasoning");
  if (reasoning == nullptr) return;
  Fields inner(*reasoning, "reasoning.");
  if (const auto effort = inner.text("effort", 32)) call.conversation.thinking = *effort != "none";
  name_unknown(inner, call);
  if (inner.error()) fields.refuse(*inner.error());
}

Json response_usage(const GenerationProgress& progress) {
  return Json{{"input_tokens", progress.prompt_tokens},
              {"input_tokens_details", {{"cached_tokens", progress.cached_tokens}}},
              {"output_tokens", progress.answer_tokens},
              {"output_tokens_details", {{"reasoning_tokens", progress.reasoning_tokens}}},
              {"total_tokens", progress.prompt_tokens + progress.answer_tokens}};
}

Json reasoning_item(const std::string& text) {
  Json content = Json::array();
  if (!text.empty()) content.push_back(Json{{"type", "reasoning_text"}, {"text", text}});
  return Json{{"id", random_id("rs_")},
              {"type", "reasoning"},
              {"summary", Json::array()},
              {"content", std::move(content)},
              {"status", "completed"}};
}

Json text_part(const std::string& text) {
  return Json{{"type", "output_text"},
              {"text", text},
              {"annotations", Json::array()},
              {"logprobs", Json::array()}};
}

Json message_item(const std::string& text) {
  return Json{{"id", random_id("msg_")},
              {"type", "message"},
              {"role", "assistant"},
              {"status", "completed"},
              {"content", Json::array({text_part(text)})}};
}

Json call_item(const std::string& id, const std::string& name, const std::string& arguments) {
  return Json{{"id", random_id("fc_")}, {"type", "function_call"}, {"call_id", id},
              {"name", name},           {"arguments", arguments},  {"status", "completed"}};
}

}  // namespace

std::variant<ChatCall, ApiError> read_openai_response(const Json& body, const ServedModel& model) {
  Fields fields(body);
  ChatCall call;
  if (fields.text("previous_response_id")) {
    fields.refuse("previous_response_id",
                  "this server keeps no responses; send the whole "
                  "conversation as \"input\"");
  }
  if (fields.boolean("background").value_or(false)) {
    fields.refuse("background", "\"background\" is not supported: this server keeps no responses");
  }
  read_input(fields, call);
  read_flat_tools(fields, call);
  read_tool_choice(fields, call, [&](const Json& choice) { return named_tool(call, choice); });
  read_sampling(fields, model, call.generation);
  read_max_tokens(fields, {"max_output_tokens"}, model, call.generation);
  read_reasoning_options(fields, model, call);
  read_text_format(fields, call);
  call.streams = fields.boolean("stream").value_or(false);
  call.ping_interval_ms = model.ping_interval_ms;
  // Prompts are never cut here; and none of what "include" may ask for is there to be told.
  if (fields.text("truncation").value_or("disabled") != "disabled") {
    call.ignored.push_back("truncation");
  }
  if (const Json* options = fields.object("stream_options")) {
    Fields inner(*options, "stream_options.");
    inner.boolean("include_obfuscation");
    name_unknown(inner, call);
    if (inner.error()) fields.refuse(*inner.error());
  }
  if (fields.has("n")) fields.refuse("n", "\"n\" is no field of this API");
  finish_reading(fields, model, call);
  if (fields.error()) return *fields.error();
  return call;
}

std::string OpenAiResponseReplier::event(std::string_view type, Json data) {
  Json whole{{"type", type}, {"sequence_number", sequence_++}};
  whole.update(data);
  return sse(type, whole);
}

Json OpenAiResponseReplier::response(const ReplyState& reply, std::string_view status) const {
  const bool has_ended = status != "in_progress";
  Json json{{"id", reply.id},
            {"object", "response"},
            {"created_at", reply.created},
            {"status", status},
            {"error", nullptr},
            {"incomplete_details", nullptr},
            {"instructions", nullptr},
            {"model", reply.model.id},
            {"output", output_},
            {"parallel_tool_calls", reply.call.parallel_calls},
            {"temperature", reply.call.generation.sampling.temperature},
            {"top_p", reply.call.generation.sampling.top_p},
            {"tool_choice", "auto"},
            {"tools", Json::array()},
            {"store", false},
            {"previous_response_id", nullptr},
            {"metadata", Json::object()},
            {"usage", has_ended ? response_usage(reply.progress) : Json()}};
  if (status == "incomplete") json["incomplete_details"] = Json{{"reason", "max_output_tokens"}};
  if (has_ended) json["timings"] = timings_of(reply.progress);
  return json;
}

std::string OpenAiResponseReplier::begin(const ReplyState& reply) {
  std::string words = event("response.created", Json{{"response", response(reply, "in_progress")}});
  return words + heartbeat(reply);
}

std::string OpenAiResponseReplier::heartbeat(const ReplyState& reply) {
  Json data{{"response", response(reply, "in_progress")}};
  if (reply.progress.queue_position > 0) {
    data["queue_position"] = reply.progress.queue_position;
  } else if (reply.progress.processed_tokens < reply.progress.prompt_tokens) {
    data["prompt_progress"] = progress_json(reply.progress);
  }
  return event("response.in_progress", std::move(data));
}

std::string OpenAiResponseReplier::open(const ReplyState&, Item kind, const ReplyDelta& delta) {
  if (open_ == kind && kind != Item::kCall) return "";
  std::string words = close();
  open_ = kind;
  text_.clear();
  if (kind == Item::kReasoning) {
    item_ = reasoning_item("");
  } else if (kind == Item::kMessage) {
    item_ = message_item("");
  } else {
    item_ = call_item(delta.id, delta.name, "");
  }
  Json told = item_;
  told["status"] = "in_progress";
  if (kind == Item::kMessage) told["content"] = Json::array();
  words += event("response.output_item.added",
                 Json{{"output_index", output_.size()}, {"item", std::move(told)}});
  if (kind == Item::kMessage) {
    words += event("response.content_part.added", Json{{"item_id", item_["id"]},
                                                       {"output_index", output_.size()},
                                                       {"content_index", 0},
                                                       {"part", text_part("")}});
  }
  return words;
}

std::string OpenAiResponseReplier::close() {
  if (open_ == Item::kNoItem) return "";
  std::string words;
  const Json place{{"item_id", item_["id"]}, {"output_index", output_.size()}};
  const auto with = [&](Json more) {
    Json data = place;
    data.update(more);
    return data;
  };
  if (open_ == Item::kReasoning) {
    words = event("response.reasoning_text.done", with({{"content_index", 0}, {"text", text_}}));
    item_["content"] = Json::array({Json{{"type", "reasoning_text"}, {"text", text_}}});
  } else if (open_ == Item::kMessage) {
    words = event("response.output_text.done",
                  with({{"content_index", 0}, {"text", text_}, {"logprobs", Json::array()}}));
    words += event("response.content_part.done",
                   with({{"content_index", 0}, {"part", text_part(text_)}}));
    item_["content"] = Json::array({text_part(text_)});
  } else {
    words = event("response.function_call_arguments.done",
                  with({{"name", item_["name"]}, {"arguments", text_}}));
    item_["arguments"] = text_;
  }
  words +=
      event("response.output_item.done", Json{{"output_index", output_.size()}, {"item", item_}});
  output_.push_back(item_);
  open_ = Item::kNoItem;
  return words;
}

std::string OpenAiResponseReplier::delta(const ReplyState& reply, int, const ReplyDelta& delta) {
  std::string words;
  std::string_view type;
  switch (delta.kind) {
    case ReplyDelta::Kind::kReasoning:
      words = open(reply, Item::kReasoning, delta);
      type = "response.reasoning_text.delta";
      break;
    case ReplyDelta::Kind::kContent:
      words = open(reply, Item::kMessage, delta);
      type = "response.output_text.delta";
      break;
    case ReplyDelta::Kind::kCallBegin: return open(reply, Item::kCall, delta);
    case ReplyDelta::Kind::kCallArguments: type = "response.function_call_arguments.delta"; break;
    case ReplyDelta::Kind::kCallEnd: return close();
  }
  text_ += delta.text;
  Json data{{"item_id", item_["id"]}, {"output_index", output_.size()}, {"delta", delta.text}};
  if (delta.kind != ReplyDelta::Kind::kCallArguments) data["content_index"] = 0;
  if (delta.kind == ReplyDelta::Kind::kContent) data["logprobs"] = Json::array();
  return words + event(type, std::move(data));
}

std::string OpenAiResponseReplier::end_choice(const ReplyState&, int) {
  return close();
}

std::string OpenAiResponseReplier::end(const ReplyState& reply) {
  const bool is_cut = reply.choice(0).reason == FinishReason::kLength;
  const std::string_view status = is_cut ? "incomplete" : "completed";
  return event(fmt::format("response.{}", status), Json{{"response", response(reply, status)}});
}

std::string OpenAiResponseReplier::error(const ReplyState& reply, const ApiError& error) {
  Json failed = response(reply, "failed");
  failed["error"] = Json{{"code", "server_error"}, {"message", error.message}};
  return event("response.failed", Json{{"response", std::move(failed)}});
}

Json OpenAiResponseReplier::whole(const ReplyState& reply) {
  const ReplyChoice& choice = reply.choice(0);
  if (!choice.reasoning.empty()) output_.push_back(reasoning_item(choice.reasoning));
  if (!choice.content.empty()) output_.push_back(message_item(choice.content));
  for (const ReplyCall& call : choice.calls) {
    output_.push_back(call_item(call.id, call.name, call.arguments));
  }
  return response(reply, choice.reason == FinishReason::kLength ? "incomplete" : "completed");
}

}  // namespace penstock
