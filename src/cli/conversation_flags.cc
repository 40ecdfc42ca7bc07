#include "cli/conversation_flags.h"

#include <fmt/format.h>

#include "text/utf8.h"

namespace penstock {
namespace {

constexpr uint64_t kToolsBytesMax = 16 << 20;

Result<Json> read_tools(Storage& storage, const std::string& path) {
  const std::string text = PENSTOCK_TRY(read_text(storage, path, kToolsBytesMax));
  Json tools = PENSTOCK_TRY(parse_json(text, path));
  if (tools.is_array()) return tools;
  return Error{ErrorCode::kInvalidArgument, fmt::format("{} is not a JSON list of tools", path)};
}

}  // namespace

Result<Conversation> conversation_of(Storage& storage, const Settings& settings) {
  Conversation conversation;
  conversation.system = replace_invalid_utf8(settings.text("system"));
  conversation.parse_special = settings.is_on("parse-special");
  if (settings.text("think") != "auto") conversation.thinking = settings.text("think") == "on";
  if (settings.is_given("tools")) {
    conversation.tools = PENSTOCK_TRY(read_tools(storage, settings.text("tools")));
  }
  return conversation;
}

}  // namespace penstock
