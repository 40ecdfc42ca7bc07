// Files of conversations, as /load reads them: what is read is saved and read again as the same, and
// can be edited.

#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "dialogue/conversation_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  const auto json = parse_json({reinterpret_cast<const char*>(data), size}, "file");
  if (!json) return 0;
  const auto conversation = read_conversation(*json, "file");
  if (!conversation) return 0;
  for (const Json& message : conversation->messages) {
    PENSTOCK_CHECK(message.at("role").is_string());
  }
  const std::string saved = to_text(to_json(*conversation), 1);
  const auto parsed = parse_json(saved, "file");
  // What lies one level deeper in what is saved may be too deep.
  if (!parsed) return 0;
  const auto again = read_conversation(*parsed, "file");
  PENSTOCK_CHECK(again.has_value());
  PENSTOCK_CHECK(to_text(to_json(*again), 1) == saved);
  return 0;
}
