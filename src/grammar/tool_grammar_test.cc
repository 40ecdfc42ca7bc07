#include "grammar/tool_grammar.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/gbnf.h"
#include "grammar/grammar.h"
#include "grammar/json_schema.h"
#include "grammar/test_grammar.h"

namespace penstock {
namespace {

Json tools() {
  return *parse_json(R"([
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
      "properties": {"city": {"type": "string", "minLength": 1}, "days": {"type": "integer",
      "minimum": 1, "maximum": 14}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "get_time"}},
    {"name": "note", "parameters": {"type": "object", "properties": {
      "text": {"type": "string"},
      "labels": {"type": "array", "items": {"type": "string"}},
      "level": {"enum": ["low", "high", 3]},
      "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
      "any": {}}}}])",
                     "tools");
}

Grammar compiled(const ToolGrammarOptions& options) {
  auto tool = tool_grammar(tools(), options);
  PENSTOCK_CHECK(tool.has_value());
  return std::move(tool->grammar);
}

std::string tagged(std::string_view function, std::string_view parameters) {
  return "<tool_call>\n<function=" + std::string(function) + ">\n" + std::string(parameters) +
         "</function>\n</tool_call>";
}
std::string parameter(std::string_view key, std::string_view value) {
  return "<parameter=" + std::string(key) + ">\n" + std::string(value) + "\n</parameter>\n";
}

TEST(ToolGrammar, tagged_calls_are_held_to_their_schemas) {
  const Grammar grammar = compiled({.form = ToolForm::kTagged});
  const std::vector<std::string> good = {
      "",
      "Just text, 1 < 2, <b>, <tool_cal, </think>.",
      tagged("get_time", ""),
      tagged("get_weather", parameter("city", "Rabat")),
      "Let me look.\n\n" + tagged("get_weather", parameter("days", "14") + parameter("city", "Ω")),
      tagged("get_time", "") + "\n" + tagged("get_weather", parameter("city", "a\nb")),
      tagged("get_weather", parameter("city", "x</parameter>y\n</parameter>\nz <tool_call>")),
      "<function=get_time>\n</function>",
      "<tool_call><function=get_weather><parameter=city>Oslo</parameter></function></tool_call>",
      tagged("note", ""),
      tagged("note", parameter("text", "") + parameter("labels", "[\"a\",\n \"b\"]")),
      tagged("note", parameter("text", "\n\n{\"a\": 1")),
      tagged("note", "<parameter=text>\n</parameter>\n"),
      tagged("note", parameter("level", "low")),
      tagged("note", parameter("level", "3")),
      tagged("note", parameter("when", "2024-02-29")),
      tagged("note", parameter("when", "null")),
      tagged("note", parameter("any", "some text")),
      tagged("note", parameter("any", "{\"a\": [1]}")),
  };
  for (const std::string& text : good) EXPECT_TRUE(fits(grammar, text)) << text;
  const std::vector<std::string> bad = {
      "<tool_call>",
      "a <tool_call> b",
      tagged("get_weather", ""),
      tagged("get_weather", parameter("city", "")),
      tagged("get_weather", parameter("city", "Rabat") + parameter("days", "15")),
      tagged("get_weather", parameter("city", "Rabat") + parameter("days", "two")),
      tagged("get_weather", parameter("city", "Rabat") + parameter("city", "Oslo")),
      tagged("get_weather", parameter("city", "Rabat") + parameter("unit", "C")),
      tagged("get_time", parameter("zone", "UTC")),
      tagged("set_time", ""),
      tagged("note", parameter("labels", "a, b")),
      tagged("note", parameter("level", "\"low\"")),
      tagged("note", parameter("when", "2023-02-29")),
      tagged("note", parameter("any", "{\"a\": ")),
      tagged("get_time", "") + "\nAnd more.",
      "<function=get_time>",
      "<tool_call>\n<function=get_time>\n</function>",
  };
  for (const std::string& text : bad) EXPECT_FALSE(fits(grammar, text)) << text;
}

TEST(ToolGrammar, json_calls_are_held_to_their_schemas) {
  const Grammar grammar = compiled({.form = ToolForm::kJson});
  const auto call = [](std::string_view text) {
    return "<tool_call>\n" + std::string(text) + "\n</tool_call>";
  };
  for (const std::string& text :
       {std::string("text with <function=x>"), call(R"({"name": "get_time", "arguments": {}})"),
        call(R"({"name":"get_weather","arguments":{"days":3,"city":"A"}})") +
            call("{\n \"name\": \"get_time\",\n \"arguments\": { }\n}"),
        call(R"({"name": "note", "arguments": {"level": "low", "any": [1], "when": null}})")}) {
    EXPECT_TRUE(fits(grammar, text)) << text;
  }
  for (const std::string& text :
       {call(R"({"name": "get_weather", "arguments": {}})"),
        call(R"({"name": "get_time", "arguments": {"a": 1}})"), call(R"({"name": "get_time"})"),
        call(R"({"name": "none", "arguments": {}})"), std::string("<tool_call>\n{")}) {
    EXPECT_FALSE(fits(grammar, text)) << text;
  }
}

TEST(ToolGrammar, the_choice_of_tools_is_obeyed) {
  ToolGrammarOptions options;
  options.choice.kind = ToolChoice::Kind::kRequired;
  const Grammar required = compiled(options);
  EXPECT_FALSE(fits(required, ""));
  EXPECT_FALSE(fits(required, "text"));
  EXPECT_TRUE(fits(required, "\n\n" + tagged("get_time", "")));
  options.choice.name = "get_time";
  options.choice.allows_several = false;
  const Grammar named = compiled(options);
  EXPECT_TRUE(fits(named, tagged("get_time", "")));
  EXPECT_FALSE(fits(named, tagged("note", "")));
  EXPECT_FALSE(fits(named, tagged("get_time", "") + tagged("get_time", "")));
  options.choice.name = "other";
  EXPECT_FALSE(tool_grammar(tools(), options));
}

TEST(ToolGrammar, calls_may_begin_inside_the_reasoning) {
  ToolGrammarOptions options{.form = ToolForm::kTagged, .choice = {}, .begins_in_reasoning = true};
  const Grammar free = compiled(options);
  EXPECT_TRUE(fits(free, "hm"));
  EXPECT_TRUE(fits(free, "hm\n</think>\n\ntext"));
  EXPECT_TRUE(fits(free, "hm\n</think>\n\n" + tagged("get_time", "")));
  EXPECT_TRUE(fits(free, "hm " + tagged("get_time", "")));
  EXPECT_FALSE(fits(free, "hm <tool_call> what"));
  options.choice.kind = ToolChoice::Kind::kRequired;
  const Grammar required = compiled(options);
  EXPECT_FALSE(fits(required, "hm\n</think>\n\n"));
  EXPECT_TRUE(fits(required, "hm\n</think>\n\n" + tagged("get_time", "")));
}

TEST(ToolGrammar, what_is_not_obeyed_is_named_and_left_free) {
  const Json odd = *parse_json(R"s([{"name": "f", "parameters": {"type": "object", "properties": {
      "a": {"type": "array", "uniqueItems": true}, "b": {"type": "string", "pattern": "(?=x)"},
      "c": {"type": "string", "format": "iri"}, "$schema": {"type": "string"}}}},
      {"name": "g", "parameters": {"type": "object", "properties": {"a": {"type": "text"}}}}])s",
                               "tools");
  for (const ToolForm form : {ToolForm::kTagged, ToolForm::kJson}) {
    const auto grammar = tool_grammar(odd, {.form = form});
    ASSERT_TRUE(grammar) << grammar.error().message;
    EXPECT_EQ(grammar->left_out, (std::vector<std::string>{"f: uniqueItems", "f: pattern",
                                                           "f: format", "g: parameters"}));
  }
  EXPECT_FALSE(tool_grammar(Json::object(), {}));
  EXPECT_FALSE(tool_grammar(*parse_json(R"([{"name": "a>b"}])", ""), {}));
}

TEST(ToolGrammar, hundreds_of_tools_are_one_reading) {
  Json many = Json::array();
  for (int i = 0; i < 500; ++i) {
    many.push_back(
        {{"name", "tool_" + std::to_string(i)},
         {"parameters",
          {{"type", "object"},
           {"properties", {{"text", {{"type", "string"}}}, {"n", {{"type", "integer"}}}}},
           {"required", {"text"}}}}});
  }
  const auto tool = tool_grammar(many, {});
  ASSERT_TRUE(tool) << tool.error().message;
  EXPECT_TRUE(fits(tool->grammar, tagged("tool_499", parameter("text", "x"))));
  EXPECT_FALSE(fits(tool->grammar, tagged("tool_500", parameter("text", "x"))));
}

TEST(ToolGrammar, parameters_may_be_put_together_and_what_is_beyond_is_named) {
  const auto made = [](const char* parameters, ToolForm form) {
    Json tool = {{"name", "f"}};
    tool["parameters"] = *parse_json(parameters, "parameters");
    return *tool_grammar(Json::array({tool}), {.form = form});
  };
  const auto call = [](ToolForm form, const char* name, const char* value) {
    if (form == ToolForm::kTagged) return tagged("f", parameter(name, value));
    return "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"" + std::string(name) +
           "\": " + value + "}}\n</tool_call>";
  };
  for (const ToolForm form : {ToolForm::kTagged, ToolForm::kJson}) {
    for (const char* whole :
         {R"({"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"n": {"type": "integer"}}}}})",
          R"({"allOf": [{"properties": {"n": {"type": "integer"}}}, {"required": ["n"]}]})",
          R"({"type": ["object", "null"], "properties": {"n": {"type": "integer"}}})"}) {
      const ToolGrammar tool = made(whole, form);
      EXPECT_TRUE(tool.left_out.empty()) << whole;
      EXPECT_TRUE(fits(tool.grammar, call(form, "n", "5"))) << whole;
      EXPECT_FALSE(fits(tool.grammar, call(form, "n", "true"))) << whole;
      EXPECT_FALSE(fits(tool.grammar, call(form, "m", "5"))) << whole;
    }
    const ToolGrammar either = made(
        R"({"anyOf": [{"properties": {"n": {"type": "integer"}}}, {"properties": {"m": {}}}],
            "properties": {"k": {"type": "integer"}}, "patternProperties": {}})",
        form);
    EXPECT_EQ(either.left_out, (std::vector<std::string>{"f: patternProperties", "f: anyOf"}));
    EXPECT_TRUE(fits(either.grammar, call(form, "m", "true")));
    EXPECT_FALSE(fits(either.grammar, call(form, "k", "true")));
  }
}

// Parameters that are texts; the pattern of the n-th has n in place of every #.
Json text_parameters(int count, std::string_view pattern) {
  Json properties = Json::object();
  for (int i = 0; i < count; ++i) {
    std::string own;
    for (const char c : pattern) own += c == '#' ? std::to_string(i) : std::string(1, c);
    Json text = {{"type", "string"}};
    if (!own.empty()) text["pattern"] = own;
    properties["name_" + std::to_string(i)] = text;
  }
  return Json{{"type", "object"}, {"properties", properties}};
}

Json tool_named(int i, Json parameters) {
  return Json{{"name", "tool_" + std::to_string(i)}, {"parameters", std::move(parameters)}};
}

TEST(ToolGrammar, one_hostile_tool_among_hundreds_is_the_only_one_set_free) {
  for (const ToolForm form : {ToolForm::kTagged, ToolForm::kJson}) {
    Json many = Json::array();
    for (int i = 0; i < 300; ++i) {
      // Each of its patterns is within the limits, all together are not.
      const bool is_hostile = i == 150;
      many.push_back(tool_named(
          i, is_hostile ? text_parameters(120, "^[a-z#]*[a#].{6}$") : text_parameters(8, "")));
    }
    const auto tool = tool_grammar(many, {.form = form});
    ASSERT_TRUE(tool) << tool.error().message;
    ASSERT_FALSE(tool->left_out.empty());
    for (const std::string& name : tool->left_out) EXPECT_TRUE(name.starts_with("tool_150: "));
  }
}

TEST(ToolGrammar, hundreds_of_hostile_tools_share_one_account) {
  Json many = Json::array();
  for (int i = 0; i < 100; ++i) {
    many.push_back(tool_named(i, text_parameters(40, "^[a-z#]*[a#].{" + std::to_string(i % 7 + 5) +
                                                         "}x" + std::to_string(i) + "$")));
  }
  for (const ToolForm form : {ToolForm::kTagged, ToolForm::kJson}) {
    const auto tool = tool_grammar(many, {.form = form});
    ASSERT_TRUE(tool) << tool.error().message;
    EXPECT_GE(tool->left_out.size(), 80u);
  }
}

TEST(ToolGrammar, a_reasoning_goes_before_any_grammar) {
  GrammarSource source = json_object_grammar();
  begin_in_reasoning(source);
  const auto grammar = Grammar::compile(source);
  ASSERT_TRUE(grammar) << grammar.error().message;
  EXPECT_TRUE(fits(*grammar, "Let me { think.\n</think>\n\n{\"a\": 1}"));
  EXPECT_FALSE(fits(*grammar, "{\"a\": 1}"));
  EXPECT_FALSE(fits(*grammar, "x</think>no"));
  GrammarSource yes = *parse_gbnf("root ::= \"yes\"");
  begin_in_reasoning(yes);
  EXPECT_TRUE(fits(*Grammar::compile(yes), "</think>\n\nyes"));
}

TEST(ToolGrammar, random_walks_end_in_whole_calls) {
  std::mt19937_64 random(11);
  for (const ToolForm form : {ToolForm::kTagged, ToolForm::kJson}) {
    ToolGrammarOptions options{.form = form};
    options.choice.kind = ToolChoice::Kind::kRequired;
    const Grammar grammar = compiled(options);
    for (int round = 0; round < 60; ++round) {
      const std::string text = random_text(grammar, random, 0.5, 60);
      if (text.empty()) continue;
      EXPECT_TRUE(fits(grammar, text)) << text;
    }
  }
}

}  // namespace
}  // namespace penstock
