#include "dialogue/conversation_file.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

Result<SavedConversation> read(std::string_view text) {
  const auto json = parse_json(text, "c.json");
  if (!json) return json.error();
  return read_conversation(*json, "c.json");
}

TEST(ConversationFile, the_system_message_of_a_list_is_its_system_text) {
  const auto conversation =
      read(R"([{"role":"system","content":"s"},{"role":"user","content":"u"}])");
  ASSERT_TRUE(conversation) << conversation.error().message;
  EXPECT_EQ(conversation->system, "s");
  ASSERT_EQ(conversation->messages.size(), 1u);
  EXPECT_EQ(conversation->messages[0].at("content"), "u");
  EXPECT_TRUE(conversation->tools.is_null());
}

TEST(ConversationFile, a_system_text_of_its_own_leaves_the_messages_alone) {
  const auto conversation =
      read(R"({"system":"","messages":[{"role":"system","content":"s"}],"tools":[]})");
  ASSERT_TRUE(conversation) << conversation.error().message;
  EXPECT_EQ(conversation->system, "");
  EXPECT_EQ(conversation->messages.size(), 1u);
  EXPECT_TRUE(conversation->tools.is_array());
}

TEST(ConversationFile, what_was_saved_is_read_as_it_was) {
  for (const char* text : {
           R"([{"role":"system","content":""},{"role":"system","content":"x"}])",
           R"([{"role":"system","content":["a"]},{"role":"user"}])",
           R"({"messages":[{"role":"user","content":null,"x":1}],"tools":[{"a":1}]})",
       }) {
    const auto conversation = read(text);
    ASSERT_TRUE(conversation) << text;
    const std::string saved = to_text(to_json(*conversation));
    const auto again = read(saved);
    ASSERT_TRUE(again) << saved;
    EXPECT_EQ(to_text(to_json(*again)), saved);
  }
}

TEST(ConversationFile, what_is_no_conversation_is_refused_by_the_file_s_name) {
  for (const char* text :
       {"5", "{}", R"({"messages":5})", "[5]", R"([{"content":"x"}])", R"([{"role":5}])",
        R"([{"role":"user","content":5}])", R"({"system":5,"messages":[]})"}) {
    const auto conversation = read(text);
    ASSERT_FALSE(conversation) << text;
    EXPECT_NE(conversation.error().message.find("c.json"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace penstock
