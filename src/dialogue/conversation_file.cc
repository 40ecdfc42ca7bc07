#include "dialogue/conversation_file.h"

#include <fmt/format.h>

namespace penstock {
namespace {

Result<void> check_message(const Json& message, std::string_view path) {
  if (!message.is_object())
    return invalid_argument(fmt::format("{}: a message is no object", path));
  PENSTOCK_TRY(json_string(message, "role", path));
  const auto content = message.find("content");
  const bool is_known =
      content == message.end() || content->is_null() || content->is_string() || content->is_array();
  if (is_known) return {};
  return invalid_argument(fmt::format("{}: a content is neither text nor a list of parts", path));
}

}  // namespace

Json to_json(const SavedConversation& conversation) {
  Json json{{"system", conversation.system}, {"messages", conversation.messages}};
  if (!conversation.tools.is_null()) json["tools"] = conversation.tools;
  return json;
}

Result<SavedConversation> read_conversation(const Json& json, std::string_view path) {
  const Json* messages = json.is_array() ? &json : json_find(json, "messages");
  if (messages == nullptr || !messages->is_array()) {
    return invalid_argument(fmt::format("{} has no list of messages", path));
  }
  for (const Json& message : *messages) PENSTOCK_TRY(check_message(message, path));
  SavedConversation conversation;
  conversation.messages = *messages;
  const bool names_system = json_find(json, "system") != nullptr;
  if (names_system) conversation.system = PENSTOCK_TRY(json_string(json, "system", path));
  if (const Json* tools = json_find(json, "tools"); tools != nullptr && tools->is_array()) {
    conversation.tools = *tools;
  }
  Json& rest = conversation.messages;
  if (!names_system && !rest.empty() && rest.front().at("role") == "system") {
    const auto content = rest.front().find("content");
    if (content != rest.front().end() && content->is_string()) {
      conversation.system = content->get<std::string>();
      rest.erase(0);
    }
  }
  return conversation;
}

}  // namespace penstock
