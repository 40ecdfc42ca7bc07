#include "text/chat_template.h"

#include <fmt/format.h>

#include <utility>

#include "text/jinja/template.h"

namespace penstock {
namespace {

// The tokens of tokenizer_config.json that the reference gives to a template under these names.
constexpr const char* kSpecialTokenNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                              "pad_token", "cls_token", "mask_token"};

// The OpenAI API has the arguments of a call as JSON text; templates want the object.
Result<void> parse_arguments(Json& call, const std::string& key) {
  const auto function = call.find("function");
  Json& holder = function != call.end() && function->is_object() ? *function : call;
  const auto arguments = holder.find("arguments");
  if (arguments == holder.end() || !arguments->is_string()) return {};
  const auto& text = arguments->get_ref<const std::string&>();
  const bool is_empty = text.find_first_not_of(" \t\r\n") == std::string::npos;
  Result<Json> parsed = is_empty ? Json::object() : parse_json(text, key + ".arguments");
  if (!parsed) return Error{ErrorCode::kInvalidArgument, parsed.error().message};
  if (!parsed->is_object()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}.arguments must be an object or its JSON text", key)};
  }
  *arguments = *std::move(parsed);
  return {};
}

// The bytes of all texts in `json`.
size_t text_bytes(const Json& json) {
  if (json.is_string()) return json.get_ref<const std::string&>().size();
  size_t bytes = 0;
  if (json.is_structured()) {
    for (const Json& child : json) bytes += text_bytes(child);
  }
  return bytes;
}

// Told before the template is asked: it would only say that it does too much work.
Result<void> check_length(const Json& messages, const Json& tools) {
  const size_t bytes = text_bytes(messages) + text_bytes(tools);
  if (bytes <= kChatBytesMax) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("the conversation is too long: its messages and tools have {} MiB of "
                           "text, and a prompt takes {} MiB; leave some of it out",
                           (bytes >> 20) + 1, kChatBytesMax >> 20)};
}

Result<Json> with_parsed_arguments(const Json& messages) {
  if (!messages.is_array()) {
    return Error{ErrorCode::kInvalidArgument, "messages must be an array"};
  }
  Json out = messages;
  for (size_t i = 0; i < out.size(); ++i) {
    if (!out[i].is_object()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("messages[{}] must be an object", i)};
    }
    const auto calls = out[i].find("tool_calls");
    if (calls == out[i].end() || !calls->is_array()) continue;
    for (size_t j = 0; j < calls->size(); ++j) {
      Json& call = (*calls)[j];
      if (!call.is_object()) continue;
      PENSTOCK_TRY(parse_arguments(call, fmt::format("messages[{}].tool_calls[{}]", i, j)));
    }
  }
  return out;
}

// The "chat_template" of a tokenizer_config.json: a text, or the one named "default" of a list.
Result<std::string> template_source(const Json& config, std::string_view what) {
  const Json* entry = json_find(config, "chat_template");
  if (entry == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: \"chat_template\" is missing, and there is no "
                             "chat_template.jinja beside it",
                             what)};
  }
  if (entry->is_string()) return entry->get<std::string>();
  if (!entry->is_array()) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: \"chat_template\" must be a text or a list of templates", what)};
  }
  for (const Json& named : *entry) {
    const Json* name = json_find(named, "name");
    if (name != nullptr && *name == "default") return json_string(named, "template", what);
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: \"chat_template\" has no template named \"default\"", what)};
}

// {"eos_token": "<|im_end|>"}, from the forms "text" and {"content": "text", ...}.
Json special_tokens(const Json& config) {
  Json tokens = Json::object();
  for (const char* name : kSpecialTokenNames) {
    const Json* entry = json_find(config, name);
    if (entry == nullptr) continue;
    const Json* text = entry->is_object() ? json_find(*entry, "content") : entry;
    if (text != nullptr && text->is_string()) tokens[name] = *text;
  }
  return tokens;
}

}  // namespace

struct ChatTemplate::Parts {
  jinja::Template compiled;
  std::string what;
  Json special_tokens;
  std::string source;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::create(std::string_view source, std::string_view what) {
  return create(source, what, Json::object());
}

Result<ChatTemplate> ChatTemplate::create(std::string_view source, std::string_view what,
                                          Json special_tokens) {
  auto compiled = jinja::Template::compile(source);
  if (!compiled) return compiled.error().with_context(std::string(what));
  return ChatTemplate(std::unique_ptr<const Parts>(new Parts{
      *std::move(compiled), std::string(what), std::move(special_tokens), std::string(source)}));
}

bool ChatTemplate::mentions(std::string_view name) const {
  const auto is_of_word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  const std::string_view source = parts_->source;
  for (size_t at = source.find(name); at != std::string_view::npos && !name.empty();
       at = source.find(name, at + 1)) {
    const size_t end = at + name.size();
    const bool begins = at == 0 || !is_of_word(source[at - 1]);
    if (begins && (end == source.size() || !is_of_word(source[end]))) return true;
  }
  return false;
}

size_t ChatTemplate::memory_bytes() const {
  return sizeof(Parts) + parts_->source.capacity() + parts_->compiled.memory_bytes();
}

Result<std::string> ChatTemplate::render(const Json& messages, const Json& tools,
                                         const ChatOptions& options) const {
  if (!tools.is_null() && !tools.is_array()) {
    return Error{ErrorCode::kInvalidArgument, "tools must be an array or null"};
  }
  if (!options.extra.is_object()) {
    return Error{ErrorCode::kInvalidArgument, "chat_template_kwargs must be an object"};
  }
  PENSTOCK_TRY(check_length(messages, tools));
  jinja::Template::Variables variables;
  for (const auto& [name, text] : parts_->special_tokens.items()) {
    variables.emplace_back(name, text);
  }
  variables.emplace_back("messages", PENSTOCK_TRY(with_parsed_arguments(messages)));
  variables.emplace_back("tools", tools);
  variables.emplace_back("documents", nullptr);
  variables.emplace_back("add_generation_prompt", options.add_generation_prompt);
  if (options.enable_thinking) {
    variables.emplace_back("enable_thinking", *options.enable_thinking);
  }
  for (const auto& [name, value] : options.extra.items()) variables.emplace_back(name, value);
  Result<std::string> text = parts_->compiled.render(variables, options.now);
  if (!text) return text.error().with_context(parts_->what);
  return text;
}

Result<ChatTemplate> load_chat_template(std::optional<std::string_view> jinja_file,
                                        std::optional<std::string_view> tokenizer_config_json) {
  constexpr std::string_view kConfigName = "tokenizer_config.json";
  Json config = Json::object();
  if (tokenizer_config_json) {
    config = PENSTOCK_TRY(parse_json(*tokenizer_config_json, kConfigName));
  }
  if (jinja_file) {
    return ChatTemplate::create(*jinja_file, "chat_template.jinja", special_tokens(config));
  }
  const std::string source = PENSTOCK_TRY(template_source(config, kConfigName));
  return ChatTemplate::create(source, "tokenizer_config.json: \"chat_template\"",
                              special_tokens(config));
}

}  // namespace penstock
