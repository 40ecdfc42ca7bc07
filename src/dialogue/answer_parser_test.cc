#include "dialogue/answer_parser.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/utf8.h"

namespace penstock {
namespace {

using Kind = AnswerEvent::Kind;

const ToolTypes& types() {
  static const ToolTypes all = *ToolTypes::create(*parse_json(R"([
    {"name": "f", "parameters": {"type": "object", "properties": {
      "s": {"type": "string"}, "i": {"type": "integer"}, "b": {"type": "boolean"},
      "o": {"type": "object"}, "a": {"type": "array"}, "n": {"type": ["string", "null"]},
      "m": {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "any": {}}}},
    {"name": "g"}])",
                                                              "tools"));
  return all;
}

void join(std::vector<AnswerEvent>& all, std::vector<AnswerEvent> more) {
  for (AnswerEvent& event : more) {
    const bool is_marker = event.kind == Kind::kCallBegin || event.kind == Kind::kCallEnd;
    if (!is_marker && !all.empty() && all.back().kind == event.kind &&
        all.back().call == event.call) {
      all.back().text += event.text;
    } else {
      all.push_back(std::move(event));
    }
  }
}

std::vector<AnswerEvent> parsed(const AnswerFormat& format,
                                const std::vector<std::string_view>& pieces,
                                AnswerParser::Ending ending) {
  AnswerParser parser(format, types());
  std::vector<AnswerEvent> all;
  for (const std::string_view piece : pieces) join(all, parser.push(piece));
  join(all, parser.finish(ending));
  return all;
}

// R:reasoning C:content name(arguments)
std::string told(const std::vector<AnswerEvent>& events) {
  std::string text;
  for (const AnswerEvent& event : events) {
    switch (event.kind) {
      case Kind::kReasoning: text += "R[" + event.text + "]"; break;
      case Kind::kContent: text += "C[" + event.text + "]"; break;
      case Kind::kCallBegin: text += std::to_string(event.call) + ":" + event.text + "("; break;
      case Kind::kArguments: text += event.text; break;
      case Kind::kCallEnd: text += ")"; break;
    }
  }
  return text;
}

constexpr auto kEnded = AnswerParser::Ending::kEnded;
constexpr auto kCut = AnswerParser::Ending::kCut;

struct Case {
  std::string text;
  std::string told;
};

std::string call(std::string_view inside) {
  return "<tool_call>\n<function=f>\n" + std::string(inside) + "</function>\n</tool_call>";
}
std::string parameter(std::string_view key, std::string_view value) {
  return "<parameter=" + std::string(key) + ">\n" + std::string(value) + "\n</parameter>\n";
}

const AnswerFormat kTagged{.form = ToolForm::kTagged};
const AnswerFormat kTaggedThinking{.form = ToolForm::kTagged, .opens_reasoning = true};
const AnswerFormat kJson{.form = ToolForm::kJson};
const AnswerFormat kPlain{};

// With every cut into two pieces, byte by byte, and in random pieces, the same events.
void check(const AnswerFormat& format, const std::vector<Case>& cases,
           AnswerParser::Ending ending = kEnded) {
  std::mt19937_64 random(5);
  for (const Case& c : cases) {
    const std::string_view text = c.text;
    const auto whole = parsed(format, {text}, ending);
    EXPECT_EQ(told(whole), c.told) << c.text;
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      ASSERT_EQ(told(parsed(format, {text.substr(0, cut), text.substr(cut)}, ending)), told(whole))
          << c.text << "\ncut at " << cut;
    }
    std::vector<std::string_view> bytes;
    for (size_t i = 0; i < text.size(); ++i) bytes.push_back(text.substr(i, 1));
    ASSERT_EQ(told(parsed(format, bytes, ending)), told(whole)) << c.text;
    for (int round = 0; round < 20; ++round) {
      std::vector<std::string_view> pieces;
      for (size_t at = 0; at < text.size();) {
        const size_t size = std::min<size_t>(1 + random() % 9, text.size() - at);
        pieces.push_back(text.substr(at, size));
        at += size;
      }
      ASSERT_EQ(told(parsed(format, pieces, ending)), told(whole)) << c.text;
    }
  }
}

TEST(AnswerParser, separates_the_reasoning) {
  check(kTaggedThinking, {{"hm\nwell\n</think>\n\nyes\n", "R[hm\nwell]C[yes\n]"},
                          {"\n\nhm", "R[hm]"},
                          {"hm\n", "R[hm]"},
                          {"a</thin b</think>c", "R[a</thin b]C[c]"},
                          {"</think>\n\n", ""},
                          {"a\n</think>\n\n b</think>", "R[a]C[ b</think>]"}});
  check(kPlain, {{"<think>\nhm\n</think>\n\nyes", "R[hm]C[yes]"},
                 {"yes <think>no</think>", "C[yes <think>no</think>]"},
                 {"<thi", "C[<thi]"},
                 {"", ""},
                 {"<tool_call>\n<function=f>", "C[<tool_call>\n<function=f>]"}});
}

TEST(AnswerParser, reads_tagged_calls) {
  check(
      kTagged,
      {
          {call(parameter("s", "Rabat")), R"(0:f({"s":"Rabat"}))"},
          {"Let me see.\n\n" + call(parameter("s", "a")) + "\n" + call(parameter("i", "5")),
           R"(C[Let me see.]0:f({"s":"a"})1:f({"i":5}))"},
          {call(""), "0:f({})"},
          {"<function=g></function>", "0:g({})"},
          {"<function=g>\n</function>\n</tool_call>\n", "0:g({})"},
          {"<tool_call><function=f><parameter=s>in "
           "line</parameter><parameter=i>7</parameter></function></tool_call>",
           R"(0:f({"s":"in line","i":7}))"},
          // exactly one newline at each side
          {call(parameter("s", "\n  a\n")), R"(0:f({"s":"\n  a\n"}))"},
          {call("<parameter=s>\n</parameter>\n"), R"(0:f({"s":""}))"},
          {call(parameter("s", "")), R"(0:f({"s":""}))"},
          // a value may look like a call
          {call(parameter("s", "x</parameter>\n</parameter>\ny <tool_call>\n</function>z")),
           R"(0:f({"s":"x</parameter>\n</parameter>\ny <tool_call>\n</function>z"}))"},
          {call(parameter("s", "\"q\" \\ 世界👍\t")), R"(0:f({"s":"\"q\" \\ 世界👍\t"}))"},
          // types
          {call(parameter("s", "5") + parameter("i", "-12") + parameter("b", "true")),
           R"(0:f({"s":"5","i":-12,"b":true}))"},
          {call(parameter("o", "{\"a\": [1, null]}") + parameter("a", "[1,\n2]")),
           "0:f({\"o\":{\"a\": [1, null]},\"a\":[1,\n2]})"},
          {call(parameter("n", "null") + parameter("m", "12") + parameter("m", "12")),
           R"(0:f({"n":null,"m":12}))"},
          {call(parameter("n", "12") + parameter("m", "x")), R"(0:f({"n":"12","m":"x"}))"},
          {call(parameter("any", "text") + parameter("new", "[1]")),
           R"(0:f({"any":"text","new":[1]}))"},
          {call(parameter("i", "many") + parameter("b", "True")), R"(0:f({"i":"many","b":true}))"},
          {call(parameter("i", "123456789012345678901234567890")),
           R"(0:f({"i":123456789012345678901234567890}))"},
          // an unknown function is told
          {"<tool_call>\n<function=who.knows-it>\n</function>\n</tool_call>", "0:who.knows-it({})"},
          // text behind a call is kept
          {call("") + "\n\nDone. ", "0:f({})C[Done. ]"},
      });
}

TEST(AnswerParser, calls_may_begin_in_the_reasoning) {
  check(kTaggedThinking,
        {{"I need f.\n" + call(parameter("s", "a")), R"(R[I need f.]0:f({"s":"a"}))"},
         {"hm\n</think>\n\n" + call(""), "R[hm]0:f({})"},
         {"hm " + call("") + "\n</think>\n\nThen text", "R[hm ]0:f({})C[Then text]"},
         {"the tag <tool_call> is\n</think>\nok", "R[the tag <tool_call> is]C[ok]"}});
}

TEST(AnswerParser, what_is_no_call_is_text_and_nothing_is_lost) {
  std::vector<Case> cases;
  for (const char* text : {"a <tool_call> b",
                           "<tool_call>",
                           "<tool_call>\n",
                           "<tool_call>\n<function=",
                           "<function=>x",
                           "<function=a\nb>",
                           "<function=<b>",
                           "<tool_call>\n{\"name\": \"f\"}",
                           "<functio n=f>",
                           "<tool_call>\n<func>",
                           "<tool_call>x<tool_call>y",
                           "</tool_call>",
                           "<parameter=a>\n1\n</parameter>",
                           "</function>",
                           "a < b <",
                           "<",
                           "<t",
                           "<tool_call><tool_call>",
                           "<function=f",
                           "<|tool_call|>"}) {
    cases.push_back({text, "C[" + std::string(text) + "]"});
  }
  check(kTagged, cases);
  cases.clear();
  for (const char* text :
       {"<tool_call>", "<tool_call>\n{", "<tool_call>\n{}", "<tool_call>[1]</tool_call>",
        "<tool_call>\n{\"name\": 5}", "<tool_call>{'name': 'f'}</tool_call>",
        "<tool_call>\n{\"name\": \"f", "<tool_call>\n{\"name\": \"f\"",
        "<tool_call>{\"arguments\": {}}</tool_call>", "<function=f></function>",
        "<tool_call>\n{\"name\": \"f\", \"arguments\": [1]}\n</tool_call>",
        "<tool_call>\n{\"name\": \"\", \"arguments\": {}}", "<tool_call>nothing</tool_call>"}) {
    cases.push_back({text, "C[" + std::string(text) + "]"});
  }
  check(kJson, cases);
}

TEST(AnswerParser, calls_that_break_off_are_closed_and_the_rest_is_text) {
  check(kTagged,
        {
            {"<tool_call>\n<function=f>\nwhat?", "0:f({})C[what?]"},
            {"<tool_call>\n<function=f>\n" + parameter("s", "a") + "and so on",
             R"(0:f({"s":"a\n</parameter>\nand so on"}))"},
            {"<function=f>\n" + parameter("s", "a") + "<parameter=>and so on",
             R"(0:f({"s":"a"})C[<parameter=>and so on])"},
            {"<function=f>\n<parameter=s>\nhalf a te", R"(0:f({"s":"half a te"}))"},
            {"<function=f>\n<parameter=i>\n12", R"(0:f({"i":12}))"},
            {"<function=f>\n<parameter=s>\na\n</parameter>\n", R"(0:f({"s":"a\n</parameter>\n"}))"},
            {"<function=f>\n<parameter=", "0:f({})C[<parameter=]"},
        });
  check(kTagged,
        {
            {"<function=f>\n<parameter=s>\nhalf a te", R"(0:f({"s":"half a te"}))"},
            {"<function=f>\n<parameter=s>\na\n</para", R"(0:f({"s":"a"}))"},
            {"<function=f>\n<parameter=s>\na\n</parameter>\n</func", R"(0:f({"s":"a"}))"},
            {"<function=f>\n<parameter=s>\na\\\"", R"(0:f({"s":"a\\\""}))"},
            {"<function=f>\n<parameter=i>\n12", "0:f({})"},
            {"<function=f>\n<parameter=", "0:f({})"},
            {"text <tool_call>\n<func", "C[text ]"},
            {"text <tool_ca", "C[text <tool_ca]"},
            {call("").substr(0, 45), "0:f({})"},
        },
        kCut);
}

TEST(AnswerParser, reads_json_calls) {
  const auto framed = [](std::string_view inside) {
    return "<tool_call>\n" + std::string(inside) + "\n</tool_call>";
  };
  check(
      kJson,
      {
          {framed(R"({"name": "f", "arguments": {"s": "a", "i": 5}})"),
           R"(0:f({"s": "a", "i": 5}))"},
          {"Yes.\n" + framed(R"({"name":"f","arguments":{}})") + "\n" +
               framed(R"({"name":"g","arguments":{"x":[1]}})"),
           R"(C[Yes.]0:f({})1:g({"x":[1]}))"},
          {framed(R"({"arguments": {"s": "</tool_call>"}, "name": "f"})"),
           R"(0:f({"s":"</tool_call>"}))"},
          {framed(R"({"name": "f", "arguments": "{\"s\": \"a\"}"})"), R"(0:f({"s":"a"}))"},
          {framed(R"({"name": "f"})"), "0:f({})"},
          {framed(R"({"name": "f", "parameters": {"s": 1}})"), R"(0:f({"s":1}))"},
          {framed(R"({"name": "f", "arguments": {"s": "</tool_call>\n{}"}})"),
           R"(0:f({"s": "</tool_call>\n{}"}))"},
          {framed(R"({"name": "f", "arguments": {"s": 1,}})"),
           "0:f({\"s\": 1})C[,}}\n</tool_call>]"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": "a\é"}})", R"(0:f({"s": "a"})C[\é"}}])"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": "\ude00"}})",
           R"(0:f({"s": ""})C[\ude00"}}])"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": 1.é}})", "0:f({})C[\"s\": 1.é}}]"},
          {"<tool_call>{\"name\": \"f\", \"arguments\": {}}", "0:f({})"},
          {framed(R"({"name": "f", "arguments": {}})") + " text", "0:f({})C[text]"},
      });
  check(
      kJson,
      {
          {R"(<tool_call>{"name": "f", "arguments": {"s": "hal)", R"(0:f({"s": "hal"}))"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": "a\u00)", R"(0:f({"s": "a"}))"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": "\ud83d)", R"(0:f({"s": ""}))"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": [1, {"x": tr)", R"(0:f({"s": [1, {}]}))"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": 1, "nam)", R"(0:f({"s": 1}))"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": 12)", "0:f({})"},
          {R"(<tool_call>{"name": "f", "arguments": {"s": 12})", R"(0:f({"s": 12}))"},
          {R"(<tool_call>{"name": "f", "argum)", ""},
      },
      kCut);
}

// Found by the fuzz target: in one piece a name of any length was taken, in several up to a limit.
TEST(AnswerParser, a_name_beyond_the_limit_is_text_however_it_comes) {
  const auto named = [](size_t length) {
    return R"(<tool_call>{"name": ")" + std::string(length, 'n') +
           R"(", "arguments": {}}</tool_call>)";
  };
  check(kJson, {{named(256), "0:" + std::string(256, 'n') + "({})"},
                {named(257), "C[" + named(257) + "]"}});
}

TEST(AnswerParser, stop_strings_end_the_content_only) {
  const AnswerFormat stops{
      .form = ToolForm::kTagged, .opens_reasoning = true, .stops = {"END", "\n\n", "É!"}};
  check(stops, {{"END\n\nÉ!</think>\n\nabEND cd", "R[END\n\nÉ!]C[ab]"},
                {"x</think>a\n\nb", "R[x]C[a]"},
                {"x</think>aÉ!b", "R[x]C[a]"},
                {"x</think>aEN É", "R[x]C[aEN É]"},
                {"x</think>aEENEND", "R[x]C[aEEN]"},
                {"x</think>EN" + call(parameter("s", "END")), R"(R[x]C[EN]0:f({"s":"END"}))"}});
  AnswerParser parser(stops, types());
  static_cast<void>(parser.push("</think>a E"));
  EXPECT_FALSE(parser.is_stopped());
  static_cast<void>(parser.push("ND more"));
  EXPECT_TRUE(parser.is_stopped());
  EXPECT_EQ(parser.stop(), "END");
  EXPECT_TRUE(parser.push("and more").empty());
  EXPECT_FALSE(StopStrings::check({""}));
  EXPECT_FALSE(StopStrings::check({std::string(1025, 'a')}));
  EXPECT_FALSE(StopStrings::check({"\xFF"}));
  EXPECT_FALSE(StopStrings::check(std::vector<std::string>(17, "a")));
  EXPECT_TRUE(StopStrings::check({"a", "é"}));
}

TEST(AnswerParser, texts_are_whole_characters) {
  AnswerParser parser(kPlain, types());
  EXPECT_TRUE(parser.push("\xE4\xB8").empty());
  EXPECT_EQ(told(parser.push("\x96z")), "C[世z]");
  EXPECT_TRUE(parser.push("\xF0\x9F").empty());
  EXPECT_EQ(told(parser.finish(kEnded)), "C[\uFFFD]");
}

// Pieces of everything that the parser knows, in random order: the same events at every cut, valid
// UTF-8, and arguments that are JSON objects.
TEST(AnswerParser, random_answers_keep_the_promises) {
  const std::vector<std::string> parts = {"<tool_call>",
                                          "</tool_call>",
                                          "<function=f>",
                                          "<function=",
                                          "</function>",
                                          "<parameter=s>",
                                          "<parameter=i>",
                                          "<parameter=any>",
                                          "</parameter>",
                                          "\n",
                                          "\n\n",
                                          " ",
                                          "a",
                                          "12",
                                          "true",
                                          "{",
                                          "}",
                                          "\"",
                                          "\\",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "{\"name\": \"f\", \"arguments\": {",
                                          "\"x\": ",
                                          "<",
                                          "</",
                                          "</think>",
                                          "<think>",
                                          "é",
                                          "\xF0\x9F",
                                          "\xFF",
                                          "EN",
                                          "END",
                                          "</par",
                                          "null",
                                          "\"name\"",
                                          "\\u12",
                                          "\\ud83d"};
  std::mt19937_64 random(9);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (uint64_t i = 0; i < 1 + random() % 24; ++i) text += parts[random() % parts.size()];
    const AnswerFormat format{
        .form = random() % 2 == 0 ? ToolForm::kTagged : ToolForm::kJson,
        .opens_reasoning = random() % 2 == 0,
        .stops = random() % 3 == 0 ? std::vector<std::string>{"END"} : std::vector<std::string>{}};
    const auto ending = random() % 2 == 0 ? kEnded : kCut;
    const auto whole = parsed(format, {text}, ending);
    std::vector<std::string_view> bytes;
    for (size_t i = 0; i < text.size(); ++i) bytes.push_back(std::string_view(text).substr(i, 1));
    ASSERT_EQ(told(parsed(format, bytes, ending)), told(whole)) << text;
    std::string arguments;
    for (const AnswerEvent& event : whole) {
      ASSERT_TRUE(is_valid_utf8(event.text)) << text;
      if (event.kind == Kind::kCallBegin) arguments.clear();
      if (event.kind == Kind::kArguments) arguments += event.text;
      if (event.kind != Kind::kCallEnd) continue;
      const auto json = parse_json(arguments, "arguments");
      const bool is_object = json && json->is_object();
      const bool has_duplicate =
          !json && json.error().message.find("duplicate") != std::string::npos;
      ASSERT_TRUE(is_object || has_duplicate) << text << "\n" << arguments;
    }
  }
}

}  // namespace
}  // namespace penstock
