// Conversations in files: what `chat` saves, and what clients of chat APIs write.
//
// Threads  plain functions
// Errors   kInvalidArgument, kCorrupt naming the file and what in it is no conversation
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

// Of a Conversation what a file has of it.
struct SavedConversation {
  std::string system;             // empty: none
  Json messages = Json::array();  // each an object with a role
  Json tools;                     // a list, or null where the file says nothing of tools
};

// {"system", "messages", "tools"}, the last where there are any.
Json to_json(const SavedConversation& conversation);

// A list of messages, or an object that has one. API clients put the system message first among them,
// where it is found unless the object has a system text of its own.
// A content is a text, null where there are tool calls alone, or a list of parts.
Result<SavedConversation> read_conversation(const Json& json, std::string_view path);

}  // namespace penstock
