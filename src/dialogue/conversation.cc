#include "dialogue/conversation.h"

#include <fmt/format.h>

#include <algorithm>

#include "dialogue/content_guard.h"
#include "dialogue/turn_end.h"
#include "grammar/tool_grammar.h"

namespace penstock {
namespace {

Json all_messages(const Conversation& conversation) {
  Json messages = Json::array();
  if (!conversation.system.empty()) {
    messages.push_back(Json{{"role", "system"}, {"content", conversation.system}});
  }
  for (const Json& message : conversation.messages) messages.push_back(message);
  return messages;
}

// Every string in `json`, and the names of its members: those of arguments are anybody's words.
void mark_strings(ContentGuard& guard, ContentGuard::Trust trust, Json& json) {
  if (json.is_string()) {
    json = guard.mark(json.get_ref<const std::string&>(), trust);
  } else if (json.is_array()) {
    for (Json& child : json) mark_strings(guard, trust, child);
  } else if (json.is_object()) {
    Json marked = Json::object();
    for (auto& [name, child] : json.items()) {
      mark_strings(guard, trust, child);
      marked[guard.mark(name, trust)] = std::move(child);
    }
    json = std::move(marked);
  }
}

void mark_messages(ContentGuard& guard, Json& messages) {
  for (Json& message : messages) {
    const Json* role = json_find(message, "role");
    const bool by_model = role != nullptr && *role == "assistant";
    mark_strings(guard, by_model ? ContentGuard::Trust::kModel : ContentGuard::Trust::kNone,
                 message);
  }
}

bool is_prefix(const std::vector<TokenId>& begin, const std::vector<TokenId>& all) {
  return begin.size() <= all.size() && std::equal(begin.begin(), begin.end(), all.begin());
}

std::string_view without_space_at_end(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r\n");
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

std::string without_newlines_around(std::string_view text) {
  while (text.starts_with('\n')) text.remove_prefix(1);
  while (text.ends_with('\n')) text.remove_suffix(1);
  return std::string(text);
}

// The rendered text up to the end of the last message, which is found by a mark behind it.
Result<ChatPrompt> continued_prompt(const ModelTexts& texts, const ContentGuard& guard,
                                    Json messages, const Json& tools, ChatOptions options) {
  constexpr std::string_view kEndMark = "\xf0\x9f\xbf\xbe";  // U+1FFFE stands for no character
  const bool is_used = to_text(messages).find(kEndMark) != std::string::npos;
  const Json* content = messages.empty() ? nullptr : json_find(messages.back(), "content");
  if (is_used || content == nullptr || !content->is_string()) {
    return Error{ErrorCode::kInvalidArgument, "the last message has no text to be continued"};
  }
  messages.back()["content"] = content->get<std::string>() + std::string(kEndMark);
  options.add_generation_prompt = false;
  std::string rendered = PENSTOCK_TRY(texts.chat_template->render(messages, tools, options));
  const size_t end = rendered.rfind(kEndMark);
  if (end == std::string::npos) {
    return Error{ErrorCode::kUnsupported,
                 "the model's template does not show the last message as "
                 "it is, so it cannot be continued"};
  }
  rendered.resize(end);
  ChatPrompt prompt;
  prompt.tokens = guard.encode(rendered);
  const size_t begun = rendered.rfind(kThinkBegin);
  const size_t ended = rendered.rfind(kThinkEnd);
  prompt.opens_reasoning =
      begun != std::string::npos && (ended == std::string::npos || begun > ended);
  return prompt;
}

// Tokens of a rendered prompt, those of a turn that the model wrote itself as they were.
std::vector<TokenId> encode_with_turns(const ContentGuard& guard, const std::string& rendered,
                                       const std::optional<KeptTurn>& turn) {
  if (!turn || !rendered.starts_with(turn->prompt_text)) return guard.encode(rendered);
  // No content can hold a special token, so the first one ends the turn.
  const size_t end = guard.find_special(rendered, turn->prompt_text.size());
  if (end == std::string_view::npos) return guard.encode(rendered);
  std::vector<TokenId> tokens = turn->prompt;
  tokens.insert(tokens.end(), turn->answer.begin(), turn->answer.end());
  const std::vector<TokenId> rest = guard.encode(rendered.substr(end));
  tokens.insert(tokens.end(), rest.begin(), rest.end());
  return tokens;
}

}  // namespace

Result<const Tokenizer*> tokenizer_of(const ModelTexts& texts) {
  if (texts.tokenizer) return &*texts.tokenizer;
  return Error{ErrorCode::kUnsupported,
               fmt::format("{} has no tokenizer.json, so it cannot read text; put the file beside "
                           "the weights and pack again",
                           texts.folder)};
}

Result<Conversation> conversation_of_item(const Json& item) {
  Conversation conversation;
  conversation.parse_special = true;
  const Json* messages = json_find(item, "messages");
  if (messages == nullptr || !messages->is_array()) {
    return Error{ErrorCode::kInvalidArgument, "it has no list of messages"};
  }
  conversation.messages = *messages;
  if (const Json* tools = json_find(item, "tools")) conversation.tools = *tools;
  if (json_find(item, "enable_thinking") != nullptr) {
    conversation.thinking = PENSTOCK_TRY(json_bool(item, "enable_thinking", "item"));
  }
  return conversation;
}

Result<void> check_can_chat(const ModelTexts& texts) {
  PENSTOCK_TRY(tokenizer_of(texts));
  if (texts.chat_template) return {};
  return Error{ErrorCode::kUnsupported,
               fmt::format("{} has no chat template ({}); `penstock run` without --chat continues "
                           "raw text",
                           texts.folder, texts.template_note)};
}

Result<ChatPrompt> make_chat_prompt(const ModelTexts& texts, const Conversation& conversation,
                                    TurnMemory* turns) {
  PENSTOCK_TRY(check_can_chat(texts));
  Json messages = all_messages(conversation);
  Json tools = conversation.tools;
  ContentGuard guard =
      PENSTOCK_TRY(ContentGuard::create(*texts.tokenizer, to_text(messages) + to_text(tools)));
  if (!conversation.parse_special) {
    mark_messages(guard, messages);
    mark_strings(guard, ContentGuard::Trust::kNone, tools);
  }
  ChatOptions options;
  options.enable_thinking = conversation.thinking;
  options.now = jinja::local_time_now();  // once: both renderings below are of the same moment
  options.extra = conversation.variables;
  if (conversation.continues_last) {
    return continued_prompt(texts, guard, std::move(messages), tools, options);
  }
  const std::string rendered = PENSTOCK_TRY(texts.chat_template->render(messages, tools, options));
  std::optional<KeptTurn> turn;
  // Where contents may be control tokens, nothing tells the end of a turn.
  if (turns != nullptr && !conversation.parse_special)
    turn = turns->find(conversation.messages, rendered);
  ChatPrompt prompt;
  prompt.text = rendered;
  prompt.tokens = encode_with_turns(guard, rendered, turn);
  prompt.opens_reasoning = without_space_at_end(rendered).ends_with(kThinkBegin);
  options.add_generation_prompt = false;
  const std::string without_answer =
      PENSTOCK_TRY(texts.chat_template->render(messages, tools, options));
  const std::vector<TokenId> stable = encode_with_turns(guard, without_answer, turn);
  if (is_prefix(stable, prompt.tokens)) prompt.stable_tokens = std::ssize(stable);
  if (const auto end = turn_end(texts)) prompt.stop_ids.push_back(*end);
  return prompt;
}

Reply split_reply(const std::string& text, bool opens_reasoning) {
  std::string_view rest = text;
  if (rest.starts_with(kThinkBegin)) {
    rest.remove_prefix(kThinkBegin.size());
    opens_reasoning = true;
  }
  if (!opens_reasoning) return {"", text};
  const size_t end = rest.find(kThinkEnd);
  if (end == std::string_view::npos) return {without_newlines_around(rest), ""};
  std::string_view content = rest.substr(end + kThinkEnd.size());
  content.remove_prefix(std::min(content.find_first_not_of('\n'), content.size()));
  return {without_newlines_around(rest.substr(0, end)), std::string(content)};
}

Json reply_message(const Reply& reply) {
  Json message{{"role", "assistant"}, {"content", reply.content}};
  if (!reply.reasoning.empty()) message["reasoning_content"] = reply.reasoning;
  return message;
}

}  // namespace penstock
