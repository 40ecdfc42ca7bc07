#include "server/api/chat_call.h"

#include <fmt/format.h>

#include <algorithm>

#include "dialogue/constraints.h"
#include "server/api/messages.h"
#include "server/http/message.h"

namespace penstock {
namespace {

// Variables of templates that requests may not set: the server's own words.
constexpr std::string_view kOwnVariables[] = {"messages",
                                              "tools",
                                              "documents",
                                              "add_generation_prompt",
                                              "continue_final_message",
                                              "tokenize",
                                              "chat_template",
                                              "bos_token",
                                              "eos_token",
                                              "pad_token",
                                              "unk_token"};

bool reads(const ServedModel& model, std::string_view name) {
  const std::optional<ChatTemplate>& chat_template = model.texts->chat_template;
  return !chat_template || chat_template->mentions(name);
}

void read_template_kwargs(Fields& fields, const ServedModel& model, ChatCall& call) {
  const Json* kwargs = fields.object("chat_template_kwargs");
  if (kwargs == nullptr) return;
  for (const auto& [name, value] : kwargs->items()) {
    if (std::ranges::find(kOwnVariables, name) != std::end(kOwnVariables)) {
      fields.refuse("chat_template_kwargs." + name,
                    fmt::format("\"chat_template_kwargs\" may not set \"{}\"", name));
    } else if (name == "enable_thinking") {
      if (!value.is_boolean()) {
        fields.refuse("chat_template_kwargs.enable_thinking",
                      "\"enable_thinking\" must be true or false");
      } else {
        call.conversation.thinking = value.get<bool>();
      }
    } else {
      call.conversation.variables[name] = value;
      if (!reads(model, name)) call.unknown.push_back("chat_template_kwargs." + name);
    }
  }
}

// What later requests will have in common with this one: its first message, when that is the
// system's with the tools, and everything before the answer.
std::vector<int64_t> checkpoints_of(const ServedModel& model, const ChatCall& call,
                                    const ChatPrompt& prompt) {
  std::vector<int64_t> places;
  const Json& messages = call.conversation.messages;
  const bool has_system = !call.conversation.system.empty() || call.has_tools() ||
                          (!messages.empty() && messages[0]["role"] == "system");
  if (has_system) {
    const auto end = std::ranges::find_first_of(prompt.tokens, model.stop_ids);
    const auto length = end - prompt.tokens.begin() + 1;
    if (length < std::ssize(prompt.tokens)) places.push_back(length);
  }
  if (prompt.stable_tokens > 0 && prompt.stable_tokens < std::ssize(prompt.tokens)) {
    places.push_back(prompt.stable_tokens);
  }
  return places;
}

}  // namespace

bool answers_to(const ServedModel& model, const std::string& name) {
  if (equals_ignoring_case(name, model.id)) return true;
  return std::ranges::any_of(
      model.aliases, [&](const std::string& alias) { return equals_ignoring_case(name, alias); });
}

void read_reply_options(Fields& fields, const ServedModel& model, ChatCall& call) {
  call.streams = fields.boolean("stream").value_or(false);
  if (const Json* options = fields.object("stream_options")) {
    Fields inner(*options, "stream_options.");
    call.includes_usage = inner.boolean("include_usage").value_or(false);
    inner.boolean("include_obfuscation");
    name_unknown(inner, call);
    if (inner.error()) fields.refuse(*inner.error());
  }
  call.tells_progress = fields.boolean("return_progress").value_or(false);
  call.tells_timings_per_token = fields.boolean("timings_per_token").value_or(false);
  call.tells_tokens = fields.boolean("return_tokens").value_or(false);
  call.ping_interval_ms = model.ping_interval_ms;
  if (const auto seconds = fields.integer("sse_ping_interval", -1, 86'400)) {
    call.ping_interval_ms = static_cast<int>(std::max<int64_t>(*seconds, 0) * 1000);
  }
  if (const auto format =
          fields.choice("reasoning_format", {"none", "split", "auto", "deepseek"})) {
    call.splits_reasoning = *format != "none";
  }
}

void read_tool_choice(Fields& fields, ChatCall& call,
                      const std::function<std::optional<std::string>(const Json&)>& named) {
  call.parallel_calls = fields.boolean("parallel_tool_calls").value_or(true);
  const Json* choice = fields.any("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_object()) {
    const std::optional<std::string> name = named(*choice);
    if (!name) return;
    call.tool_choice = CallChoice::kNamed;
    call.tool_name = *name;
    if (find_tool(call.conversation.tools, call.tool_name) == nullptr) {
      fields.refuse("tool_choice", fmt::format("there is no tool \"{}\"", call.tool_name));
    }
    return;
  }
  const auto word = fields.choice("tool_choice", {"auto", "none", "required"});
  if (word == "none") call.tool_choice = CallChoice::kNever;
  if (word == "required") call.tool_choice = CallChoice::kRequired;
  if (word == "required" && !call.has_tools()) {
    fields.refuse("tool_choice", "\"tool_choice\" is required, but there are no tools");
  }
}

void read_thinking(Fields& fields, const ServedModel& model, ChatCall& call) {
  std::optional<bool>& thinking = call.conversation.thinking;
  thinking = model.thinking;
  call.generation.reasoning_budget = model.reasoning_budget;
  if (const auto effort = fields.text("reasoning_effort", 32)) thinking = *effort != "none";
  if (const auto enabled = fields.boolean("enable_thinking")) thinking = *enabled;
  read_template_kwargs(fields, model, call);
  for (const char* name : {"thinking_token_budget", "thinking_budget_tokens", "reasoning_budget"}) {
    const auto budget = fields.integer(name, -1, INT32_MAX);
    if (budget && *budget >= 0) call.generation.reasoning_budget = *budget;
    if (budget && *budget < 0) call.generation.reasoning_budget.reset();
  }
}

void name_unknown(const Fields& inner, ChatCall& call) {
  const std::vector<std::string> names = inner.unknown();
  call.unknown.insert(call.unknown.end(), names.begin(), names.end());
}

void finish_reading(Fields& fields, const ServedModel& model, ChatCall& call) {
  if (const auto name = fields.text("model", 1024)) {
    if (model.refuses_other_models && !answers_to(model, *name)) {
      fields.refuse("model",
                    fmt::format("there is no model \"{}\" here; \"{}\" is served", *name, model.id),
                    404);
    }
  }
  name_unknown(fields, call);
  if (model.refuses_unknown_fields && !call.unknown.empty()) {
    const std::string& name = call.unknown.front();
    fields.refuse(name, fmt::format("the field \"{}\" is not known", name));
  }
  call.ignored.insert(call.ignored.end(), call.unknown.begin(), call.unknown.end());
}

namespace {

ToolChoice tool_choice_of(const ChatCall& call) {
  ToolChoice choice;
  choice.kind =
      call.tool_choice == CallChoice::kAuto ? ToolChoice::Kind::kAuto : ToolChoice::Kind::kRequired;
  choice.name = call.tool_name;
  choice.allows_several = call.parallel_calls;
  return choice;
}

// What holds the answer to its form: a schema or a grammar behind the reasoning, or the tools.
std::optional<ApiError> constrain(const ServedModel& model, ChatCall& call) {
  const bool has_form = call.schema || !call.grammar.empty();
  if (!has_form && !call.has_tools()) return {};
  if (has_form && call.has_tools()) {
    return ApiError{.status = 501,
                    .message =
                        "tools and a format of the answer do not go together "
                        "here; send one of them"};
  }
  Constraints& constraints = *model.constraints;
  const bool reasons = call.generation.opens_reasoning;
  const Result<Constraints::Made> made =
      call.schema ? constraints.of_schema(*call.schema)
      : has_form  ? constraints.of_gbnf(call.grammar)
                  : constraints.of_tools(call.conversation.tools, tool_choice_of(call), reasons);
  if (!made) {
    return ApiError{.message = made.error().message,
                    .param = call.has_tools() ? "tools"
                             : call.schema    ? call.format_field
                                              : "grammar"};
  }
  call.generation.make_mask = made->make;
  call.generation.masks_reasoning = !has_form;
  call.ignored.insert(call.ignored.end(), made->left_out.begin(), made->left_out.end());
  return {};
}

}  // namespace

std::optional<ApiError> prepare(const ServedModel& model, ChatCall& call) {
  if (call.tool_choice == CallChoice::kNever) call.conversation.tools = Json();
  const Result<ChatPrompt> prompt = make_chat_prompt(*model.texts, call.conversation, model.turns);
  if (!prompt) {
    return ApiError{.status = prompt.error().code == ErrorCode::kInvalidArgument ? 400 : 501,
                    .message = prompt.error().message,
                    .param = "messages"};
  }
  call.generation.prompt = prompt->tokens;
  call.prompt_text = prompt->text;
  call.generation.checkpoints = checkpoints_of(model, call, *prompt);
  call.generation.opens_reasoning = prompt->opens_reasoning;
  call.generation.stop_ids = prompt->stop_ids;
  return constrain(model, call);
}

}  // namespace penstock
