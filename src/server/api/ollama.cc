#include "server/api/ollama.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "server/api/messages.h"
#include "server/api/sampling_fields.h"

namespace penstock {
namespace {

std::string time_text(int64_t seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

int64_t ns_of_ms(int64_t ms) {
  return ms * 1'000'000;
}

// "options": the sampling fields.
void read_options(Fields& fields, const ServedModel& model, ChatCall& call) {
  static const Json kNothing = Json::object();
  const Json* given = fields.object("options");
  Fields options(given != nullptr ? *given : kNothing, "options.");
  read_sampling(options, model, call.generation);
  read_max_tokens(options, {"num_predict"}, model, call.generation);
  if (options.error()) fields.refuse(*options.error());
  name_unknown(options, call);  // settings of a loader among them, such as num_ctx
}

void read_think(Fields& fields, const ServedModel& model, ChatCall& call) {
  call.conversation.thinking = model.thinking.value_or(false);
  call.generation.reasoning_budget = model.reasoning_budget;
  const Json* think = fields.any("think");
  if (think == nullptr) return;
  if (think->is_boolean()) {
    call.conversation.thinking = think->get<bool>();
  } else if (think->is_string()) {  // "low", "medium", "high"
    call.conversation.thinking = true;
  } else {
    fields.refuse("think", "\"think\" must be true or false");
  }
}

void read_common(Fields& fields, const ServedModel& model, ChatCall& call) {
  read_options(fields, model, call);
  read_think(fields, model, call);
  call.streams = fields.boolean("stream").value_or(true);
  call.ping_interval_ms = model.ping_interval_ms;
  fields.pass_over({"keep_alive"});  // the model stays
  call.format_field = "format";
  if (const Json* format = fields.any("format")) {
    if (format->is_object()) {
      call.schema = *format;
    } else if (*format == "json") {
      call.schema = Json(true);
    } else if (*format != "") {
      fields.refuse("format", "\"format\" must be \"json\" or a schema");
    }
  }
}

// Images are an array beside the content here.
void refuse_images(Fields& fields, const Json& body) {
  const auto has_images = [](const Json& object) {
    const Json* images = json_find(object, "images");
    return images != nullptr && images->is_array() && !images->empty();
  };
  bool found = has_images(body);
  if (const Json* messages = json_find(body, "messages"); messages && messages->is_array()) {
    for (const Json& message : *messages) found = found || has_images(message);
  }
  fields.pass_over({"images"});
  if (found) fields.refuse("images", "this server takes text only, no images");
}

// "thinking" is Ollama's name for what the template calls reasoning_content.
Json in_openai_shape(const Json& body) {
  Json changed = body;
  const auto messages = changed.find("messages");
  if (messages == changed.end() || !messages->is_array()) return changed;
  for (Json& message : *messages) {
    if (!message.is_object() || !message.contains("thinking")) continue;
    message["reasoning_content"] = message["thinking"];
    message.erase("thinking");
  }
  return changed;
}

Json details_json() {
  return Json{{"parent_model", ""},      {"format", "penstock"},
              {"family", "qwen3_5_moe"}, {"families", Json::array({"qwen3_5_moe"})},
              {"parameter_size", ""},    {"quantization_level", ""}};
}

Json listed_model(const ServedModel& model, const std::string& name) {
  return Json{{"name", name},
              {"model", name},
              {"modified_at", time_text(model.created)},
              {"size", model.about.value("size_bytes", uint64_t{0})},
              {"digest", model.about.value("id", std::string())},
              {"details", details_json()}};
}

}  // namespace

std::variant<ChatCall, ApiError> read_ollama_chat(const Json& given, const ServedModel& model) {
  const Json body = in_openai_shape(given);
  Fields fields(body);
  ChatCall call;
  refuse_images(fields, body);
  call.conversation.messages = read_messages(fields);
  call.conversation.tools = read_tools(fields);
  read_common(fields, model, call);
  finish_reading(fields, model, call);
  if (fields.error()) return *fields.error();
  return call;
}

std::variant<ChatCall, ApiError> read_ollama_generate(const Json& body, const ServedModel& model) {
  Fields fields(body);
  ChatCall call;
  refuse_images(fields, body);
  const std::string prompt = fields.text("prompt").value_or("");
  call.conversation.system = fields.text("system").value_or("");
  call.conversation.messages.push_back(Json{{"role", "user"}, {"content", prompt}});
  if (const auto suffix = fields.text("suffix"); suffix && !suffix->empty()) {
    fields.refuse("suffix", "\"suffix\" is not supported: this model does not fill gaps", 501);
  }
  read_common(fields, model, call);
  if (fields.boolean("raw").value_or(false)) {
    call.splits_reasoning = false;
    call.generation.prompt = model.texts->tokenizer->encode(prompt);
    if (call.generation.prompt.empty()) fields.refuse("prompt", "\"prompt\" is empty");
  }
  finish_reading(fields, model, call);
  if (fields.error()) return *fields.error();
  return call;
}

Json ollama_tags(const ServedModel& model) {
  Json models = Json::array({listed_model(model, model.id)});
  for (const std::string& alias : model.aliases) models.push_back(listed_model(model, alias));
  return Json{{"models", std::move(models)}};
}

Json ollama_running(const ServedModel& model) {
  Json running = listed_model(model, model.id);
  running["expires_at"] = "9999-12-31T23:59:59Z";
  running["size_vram"] = 0;
  running["context_length"] = model.context;
  return Json{{"models", Json::array({std::move(running)})}};
}

std::variant<Json, ApiError> ollama_show(const Json& body, const ServedModel& model) {
  Fields fields(body);
  auto name = fields.text("model", 1024);
  if (!name) name = fields.text("name", 1024);
  if (!name) fields.refuse("model", "\"model\" is missing");
  if (fields.error()) return *fields.error();
  if (model.refuses_other_models && !answers_to(model, *name)) {
    return ApiError{.status = 404, .message = fmt::format("model '{}' not found", *name)};
  }
  Json info{{"general.architecture", "qwen3_5_moe"},
            {"general.basename", model.id},
            {"qwen3_5_moe.context_length", model.context}};
  for (const auto& [key, value] : model.about.items()) info["qwen3_5_moe." + key] = value;
  return Json{{"modelfile", ""},
              {"parameters", ""},
              {"template", ""},
              {"license", ""},
              {"modified_at", time_text(model.created)},
              {"details", details_json()},
              {"model_info", std::move(info)},
              {"capabilities", Json::array({"completion", "tools", "thinking"})}};
}

Json OllamaReplier::words(const std::string& content, const std::string& thinking,
                          const std::vector<ReplyCall>& calls) const {
  Json message{{"role", "assistant"}, {"content", content}};
  if (!thinking.empty()) message["thinking"] = thinking;
  if (!calls.empty()) {
    message["tool_calls"] = Json::array();
    for (const ReplyCall& call : calls) {
      const Result<Json> arguments = parse_json(call.arguments, "arguments");
      message["tool_calls"].push_back(
          Json{{"function",
                {{"name", call.name}, {"arguments", arguments ? *arguments : Json::object()}}}});
    }
  }
  return Json{{"message", std::move(message)}};
}

Json OllamaGenerateReplier::words(const std::string& content, const std::string& thinking,
                                  const std::vector<ReplyCall>&) const {
  Json json{{"response", content}};
  if (!thinking.empty()) json["thinking"] = thinking;
  return json;
}

Json OllamaReplier::line(const ReplyState& reply, Json words) const {
  Json json{{"model", reply.model.id}, {"created_at", time_text(reply.created)}};
  json.update(words);
  json["done"] = false;
  return json;
}

Json OllamaReplier::last_line(const ReplyState& reply, Json words) const {
  const GenerationProgress& progress = reply.progress;
  Json json = line(reply, std::move(words));
  json["done"] = true;
  json["done_reason"] = reply.choice(0).reason == FinishReason::kLength ? "length" : "stop";
  json["total_duration"] = progress.metrics.prompt.wall_ns + progress.metrics.answer.wall_ns +
                           ns_of_ms(progress.queue_ms);
  json["load_duration"] = 0;
  json["prompt_eval_count"] = progress.prompt_tokens;
  json["prompt_eval_duration"] = progress.metrics.prompt.wall_ns;
  json["eval_count"] = progress.answer_tokens;
  json["eval_duration"] = progress.metrics.answer.wall_ns;
  return json;
}

// Not part of Ollama's protocol, but of no harm in it: a line that adds nothing.
std::string OllamaReplier::heartbeat(const ReplyState& reply) {
  return to_text(line(reply, words("", "", {}))) + "\n";
}

// Calls are told whole, when they have ended.
std::string OllamaReplier::delta(const ReplyState& reply, int choice, const ReplyDelta& delta) {
  switch (delta.kind) {
    case ReplyDelta::Kind::kReasoning:
      return to_text(line(reply, words("", delta.text, {}))) + "\n";
    case ReplyDelta::Kind::kContent: return to_text(line(reply, words(delta.text, "", {}))) + "\n";
    case ReplyDelta::Kind::kCallEnd: {
      const auto& calls = reply.choice(choice).calls;
      return to_text(line(reply, words("", "", {calls.at(static_cast<size_t>(delta.call))}))) +
             "\n";
    }
    case ReplyDelta::Kind::kCallBegin:
    case ReplyDelta::Kind::kCallArguments: return "";
  }
  return "";
}

std::string OllamaReplier::end(const ReplyState& reply) {
  return to_text(last_line(reply, words("", "", {}))) + "\n";
}

std::string OllamaReplier::error(const ReplyState&, const ApiError& error) {
  return to_text(error_json(protocol(), error)) + "\n";
}

Json OllamaReplier::whole(const ReplyState& reply) {
  const ReplyChoice& choice = reply.choice(0);
  return last_line(reply, words(choice.content, choice.reasoning, choice.calls));
}

}  // namespace penstock
