// Messages and tools of a chat in OpenAI's shape, checked and brought into the form that chat
// templates take: one system message at most, contents as plain text, arguments as objects.
#pragma once

#include "base/json.h"
#include "server/api/fields.h"

namespace penstock {

inline constexpr size_t kMessagesMax = 10'000;
inline constexpr size_t kOfferedToolsMax = 512;
inline constexpr size_t kOfferedToolsBytesMax = 1 << 20;

// The list of `fields["messages"]`; faults go to `fields`.
Json read_messages(Fields& fields);

// A string, a list of text parts, or null; `name` as it is told in errors.
std::string read_content(Fields& fields, const Json* content, const std::string& name);

// "tools" as the template takes them; null when there are none.
Json read_tools(Fields& fields);

// The parameters of a tool by its function's name; nullptr when there is none.
const Json* find_tool(const Json& tools, std::string_view name);

}  // namespace penstock
