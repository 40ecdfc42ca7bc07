#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <string>

#include "text/test_data.h"

namespace penstock {
namespace {

ChatTemplate demo_template() {
  auto chat = ChatTemplate::create(read_test_file("chat_template.jinja"), "chat_template.jinja");
  EXPECT_TRUE(chat) << chat.error().message;
  return *std::move(chat);
}

Json user(const char* text) {
  return Json::array({Json{{"role", "user"}, {"content", text}}});
}

std::string render(const ChatTemplate& chat, const Json& messages,
                   const ChatOptions& options = {}) {
  const auto text = chat.render(messages, nullptr, options);
  EXPECT_TRUE(text) << text.error().message;
  return text ? *text : "";
}

ChatTemplate of(const char* source) {
  auto chat = ChatTemplate::create(source, "template");
  EXPECT_TRUE(chat) << chat.error().message;
  return *std::move(chat);
}

TEST(ChatTemplate, gives_the_recorded_texts_of_the_demo_model) {
  const ChatTemplate chat = demo_template();
  const Json cases = read_test_json("chat_cases.json");
  ASSERT_GT(cases.size(), 30u);
  for (const Json& one : cases) {
    ChatOptions options;
    options.add_generation_prompt = one.at("add_generation_prompt").get<bool>();
    if (one.contains("enable_thinking"))
      options.enable_thinking = one["enable_thinking"].get<bool>();
    const Json tools = one.contains("tools") ? one["tools"] : Json();
    const auto text = chat.render(one.at("messages"), tools, options);
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(*text, one.at("text").get<std::string>());
  }
}

TEST(ChatTemplate, thinks_unless_told_otherwise) {
  const ChatTemplate chat = demo_template();
  const std::string begin = "<|im_start|>user\nHi<|im_end|>\n";
  EXPECT_EQ(render(chat, user("Hi")), begin + "<|im_start|>assistant\n<think>\n");
  ChatOptions options;
  options.enable_thinking = false;
  EXPECT_EQ(render(chat, user("Hi"), options),
            begin + "<|im_start|>assistant\n<think>\n\n</think>\n\n");
  options.add_generation_prompt = false;
  EXPECT_EQ(render(chat, user("Hi"), options), begin);
}

TEST(ChatTemplate, reports_what_the_template_refuses) {
  const ChatTemplate chat = demo_template();
  const auto text = chat.render(Json::array(), nullptr, {});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(text.error().message.find("No messages provided."), std::string::npos);
  EXPECT_NE(text.error().message.find("chat_template.jinja: line 15"), std::string::npos)
      << text.error().message;
}

TEST(ChatTemplate, parses_arguments_of_calls_that_came_as_text) {
  const ChatTemplate chat =
      of("{% for c in messages[0].tool_calls %}{{ c.function.arguments is mapping }}"
         "{{ c.function.arguments | tojson }}{% endfor %}");
  const auto message = [](Json arguments) {
    const Json call = {{"function", {{"name", "f"}, {"arguments", arguments}}}};
    return Json::array({Json{{"role", "assistant"}, {"tool_calls", Json::array({call})}}});
  };
  EXPECT_EQ(render(chat, message("{\"b\": [1, 2.50], \"a\": \"é\"}")),
            "True{\"b\": [1, 2.5], \"a\": \"é\"}");
  EXPECT_EQ(render(chat, message(Json{{"x", nullptr}})), "True{\"x\": null}");
  EXPECT_EQ(render(chat, message("")), "True{}");
  for (const char* bad : {"[1]", "\"text\"", "{", "{\"a\":1,\"a\":2}", "nonsense"}) {
    const auto text = chat.render(message(bad), nullptr, {});
    ASSERT_FALSE(text) << bad;
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(text.error().message.find("messages[0].tool_calls[0].arguments"), std::string::npos);
  }
}

TEST(ChatTemplate, refuses_messages_of_the_wrong_shape) {
  const ChatTemplate chat = of("x");
  EXPECT_FALSE(chat.render(Json::object(), nullptr, {}));
  EXPECT_FALSE(chat.render(Json::array({1}), nullptr, {}));
  EXPECT_FALSE(chat.render(Json::array(), Json::object(), {}));
  ChatOptions options;
  options.extra = Json::array();
  EXPECT_FALSE(chat.render(Json::array(), nullptr, options));
  EXPECT_TRUE(chat.render(Json::array(), nullptr, {}));
}

TEST(ChatTemplate, takes_megabytes_and_says_when_a_conversation_is_too_long) {
  const ChatTemplate chat = demo_template();
  const std::string long_text(14u << 20, 'x');
  EXPECT_GT(render(chat, user(long_text.c_str())).size(), long_text.size());
  const auto text = chat.render(user(std::string(16u << 20, 'x').c_str()), nullptr, {});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(text.error().message.find("the conversation is too long"), 0u) << text.error().message;
}

TEST(ChatTemplate, tells_the_template_the_time_that_it_is_given) {
  const ChatTemplate chat = of("{{ strftime_now('%Y-%m-%d') }}");
  ChatOptions options;
  options.now.emplace();
  options.now->fields.tm_year = 124;
  options.now->fields.tm_mon = 1;
  options.now->fields.tm_mday = 29;
  EXPECT_EQ(render(chat, Json::array(), options), "2024-02-29");
}

TEST(ChatTemplate, hands_extra_variables_to_the_template) {
  const ChatTemplate chat =
      of("{{ effort }}{{ add_generation_prompt }}{{ enable_thinking is defined }}"
         "{{ tools is none }}");
  ChatOptions options;
  options.extra = {{"effort", "low"}, {"add_generation_prompt", "overridden"}};
  EXPECT_EQ(render(chat, Json::array(), options), "lowoverriddenFalseTrue");
}

TEST(ChatTemplate, knows_which_words_it_reads) {
  const auto chat =
      ChatTemplate::create("{% if enable_thinking %}{{ m.my_style }}{% endif %}", "t");
  ASSERT_TRUE(chat);
  for (const char* name : {"enable_thinking", "my_style", "m"}) EXPECT_TRUE(chat->mentions(name));
  for (const char* name : {"thinking", "enable", "style", "", "enable_thinking2"}) {
    EXPECT_FALSE(chat->mentions(name)) << name;
  }
}

TEST(LoadChatTemplate, prefers_the_file_to_the_configuration) {
  const auto text_of = [](std::optional<std::string_view> file,
                          std::optional<std::string_view> config) {
    const auto chat = load_chat_template(file, config);
    EXPECT_TRUE(chat) << chat.error().message;
    return chat ? render(*chat, Json::array()) : "";
  };
  EXPECT_EQ(text_of("file", R"({"chat_template": "config"})"), "file");
  EXPECT_EQ(text_of("file", std::nullopt), "file");
  EXPECT_EQ(text_of(std::nullopt, R"({"chat_template": "config"})"), "config");
  EXPECT_EQ(text_of(std::nullopt, R"({"chat_template": [{"name": "tool_use", "template": "t"},
                                                        {"name": "default", "template": "d"}]})"),
            "d");
}

TEST(LoadChatTemplate, shows_the_configured_tokens_to_the_template) {
  const auto chat = load_chat_template(
      "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}",
      R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null})");
  ASSERT_TRUE(chat);
  EXPECT_EQ(render(*chat, Json::array()), "<s></s>False");
}

TEST(LoadChatTemplate, says_what_is_missing) {
  const auto error_of = [](std::optional<std::string_view> file,
                           std::optional<std::string_view> config) {
    const auto chat = load_chat_template(file, config);
    EXPECT_FALSE(chat);
    return chat ? Error{} : chat.error();
  };
  EXPECT_EQ(error_of(std::nullopt, std::nullopt).code, ErrorCode::kNotFound);
  EXPECT_EQ(error_of(std::nullopt, "{}").code, ErrorCode::kNotFound);
  EXPECT_EQ(error_of(std::nullopt, R"({"chat_template": []})").code, ErrorCode::kNotFound);
  EXPECT_EQ(error_of(std::nullopt, R"({"chat_template": 5})").code, ErrorCode::kCorrupt);
  EXPECT_EQ(error_of(std::nullopt, "not json").code, ErrorCode::kCorrupt);
  EXPECT_EQ(error_of("{% if %}", std::nullopt).code, ErrorCode::kCorrupt);
  EXPECT_EQ(error_of("{% include 'x' %}", std::nullopt).code, ErrorCode::kUnsupported);
  EXPECT_NE(error_of("a\nb\n{{ 1 + }}", std::nullopt).message.find("chat_template.jinja: line 3"),
            std::string::npos);
}

}  // namespace
}  // namespace penstock
