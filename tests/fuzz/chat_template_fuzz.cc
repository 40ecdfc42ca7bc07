// Any bytes as a chat template, rendered for a short conversation: text or an Error, no crash, no
// hang, no unbounded memory; text that is valid UTF-8; and the same again for the same conversation
// at the same time.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "text/chat_template.h"
#include "text/utf8.h"

namespace penstock {
namespace {

Json conversation() {
  const Json call = {
      {"type", "function"},
      {"function", {{"name", "f"}, {"arguments", "{\"x\": [1, 2.5, null, \"é\"]}"}}}};
  return Json::array({
      Json{{"role", "system"}, {"content", " Be brief. "}},
      Json{{"role", "user"}, {"content", Json::array({Json{{"type", "text"}, {"text", "世界"}}})}},
      Json{{"role", "assistant"}, {"content", nullptr}, {"tool_calls", Json::array({call})}},
      Json{{"role", "tool"}, {"content", "a\n\nb"}},
      Json{{"role", "user"}, {"content", "Hi"}},
  });
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  static const Json messages = conversation();
  static const Json tools = Json::array({Json{{"function", {{"name", "f"}, {"items", 1}}}}});
  const auto chat = ChatTemplate::create({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!chat) return 0;
  ChatOptions options;
  options.enable_thinking = size % 2 == 0;
  options.now.emplace();
  options.now->fields.tm_year = 124;
  options.now->fields.tm_mday = 29;
  options.extra = {{"numbers", Json::array({3, -1, 2.5, 1e300})},
                   {"tree", Json::array({Json{{"c", Json::array({1, Json::array({2})})}}})}};
  const auto text = chat->render(messages, tools, options);
  if (text) PENSTOCK_CHECK(is_valid_utf8(*text));
  const auto again = chat->render(messages, tools, options);
  PENSTOCK_CHECK(again.has_value() == text.has_value());
  PENSTOCK_CHECK(text ? *again == *text : again.error().message == text.error().message);
  return 0;
}
