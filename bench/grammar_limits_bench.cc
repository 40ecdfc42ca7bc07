// What does a hostile grammar cost before it is refused? Times of compiling inputs that were made to
// be expensive: patterns, schemas, tools, GBNF.
//
//   grammar_limits_bench
//
// Each line: the input, processor time in milliseconds, and what became of it.
#include <fmt/format.h>

#include <ctime>
#include <functional>
#include <string>

#include "base/json.h"
#include "grammar/gbnf.h"
#include "grammar/grammar.h"
#include "grammar/json_schema.h"
#include "grammar/tool_grammar.h"

namespace penstock {
namespace {

double milliseconds_now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

void timed(const char* name, const std::function<std::string()>& make) {
  const double begin = milliseconds_now();
  const std::string end = make();
  fmt::print("{:<40} {:9.1f} ms  {}\n", name, milliseconds_now() - begin, end.substr(0, 110));
}

std::string outcome(const Result<Grammar>& grammar) {
  return grammar ? fmt::format("{} states", grammar->state_count()) : grammar.error().message;
}

void gbnf(const char* name, const std::string& text) {
  timed(name, [&]() -> std::string {
    const auto source = parse_gbnf(text);
    return source ? outcome(Grammar::compile(*source)) : source.error().message;
  });
}

void schema(const char* name, const Json& json) {
  timed(name, [&]() -> std::string {
    const auto source = json_schema_grammar(json);
    return source ? outcome(Grammar::compile(*source)) : source.error().message;
  });
}

void tools(const char* name, const Json& json) {
  for (const ToolForm form : {ToolForm::kTagged, ToolForm::kJson}) {
    timed(name, [&]() -> std::string {
      const auto made = tool_grammar(json, {.form = form});
      if (!made) return made.error().message;
      return fmt::format("{} states, {} left out", made->grammar.state_count(),
                         made->left_out.size());
    });
  }
}

Json text_with(const std::string& pattern) {
  return Json{{"type", "string"}, {"pattern", pattern}};
}

std::string repeated_text(std::string_view text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

void hostile_gbnf() {
  gbnf("gbnf: .*[a].{30}", "root ::= .* [a] .{30}");
  gbnf("gbnf: nested repetitions", "root ::= ((((([a-z]{40}){40}){40}){40}){40})");
  gbnf("gbnf: many large classes", "root ::= " + repeated_text("[^a-c\\u4e00] ", 9000));
  std::string chain = "root ::= a0\n";
  for (int i = 0; i < 9000; ++i) chain += fmt::format("a{} ::= a{} | \"x\"\n", i, i + 1);
  gbnf("gbnf: chain of rules", chain + "a9000 ::= \"y\"");
  std::string nullable = "root ::= a0\n";
  for (int i = 0; i < 9000; ++i) nullable += fmt::format("a{} ::= a{}? \"\"\n", i, i + 1);
  gbnf("gbnf: chain of empty rules", nullable + "a9000 ::= \"\"");
  std::string wide = "root ::= \"x\"";
  for (int i = 0; i < 18000; ++i) wide += fmt::format(" | b{}", i);
  wide += "\n";
  for (int i = 0; i < 18000; ++i)
    wide += fmt::format("b{} ::= b{} \"q\"\n", i, (i * 7 + 1) % 18000);
  gbnf("gbnf: wide", wide.substr(0, kGbnfBytesMax));
  gbnf("gbnf: optionals", "root ::= " + repeated_text("[a-z]? ", 30000));
  gbnf("gbnf: long texts", "root ::= \"" + repeated_text("abcdefgh", 12000) + "\"");
  std::string texts = "root ::= \"q\"";
  for (int i = 0; i < 15000; ++i) texts += fmt::format(" | \"{}\"", i * 7919 % 99991);
  gbnf("gbnf: many texts", texts);
  std::string loops = "root ::= (";
  for (int i = 0; i < 5000; ++i) loops += fmt::format("{}\"{}\" .", i == 0 ? "" : " | ", i % 977);
  gbnf("gbnf: alternatives in a loop", loops + ")*");
}

void hostile_schemas() {
  schema("schema: .*[a].{30}", text_with("^.*[a].{30}$"));
  Json many = Json::object();
  for (int i = 0; i < 120; ++i) {
    many[fmt::format("p{}", i)] = text_with(fmt::format("^.*[a{}].{{12}}$", i % 10));
  }
  schema("schema: 120 patterns", {{"type", "object"}, {"properties", many}});
  Json limited = text_with("^(ab|cd|.e)*$");
  limited["minLength"] = 3;
  limited["maxLength"] = 4000;
  schema("schema: pattern with limits", limited);
  Json numbers = Json::array();
  for (int i = 0; i < 60000; ++i) numbers.push_back(i * 7);
  schema("schema: enum of 60,000", {{"enum", numbers}});
  Json texts = Json::array();
  for (int i = 0; i < 20000; ++i) texts.push_back(fmt::format("{:x}", i * 7919));
  schema("schema: enum of 20,000 texts", {{"enum", texts}});
  Json all = Json::array();
  for (int i = 0; i < 300; ++i) {
    Json part = Json::object();
    for (int k = 0; k < 30; ++k) part[fmt::format("k{}", i * 30 + k)] = true;
    all.push_back({{"properties", part}});
  }
  schema("schema: allOf of 300 objects", {{"allOf", all}});
  Json one = Json::array();
  for (int i = 0; i < 2500; ++i)
    one.push_back(
        {{"type", "object"}, {"properties", {{"kind", {{"const", i}}}}}, {"required", {"kind"}}});
  schema("schema: oneOf of 2,500", {{"oneOf", one}});
  Json required = Json::array();
  for (int i = 0; i < 24000; ++i) required.push_back(fmt::format("n{}", i));
  schema("schema: required of 24,000", {{"type", "object"}, {"required", required}});
  Json members = Json::object();
  for (int i = 0; i < 14000; ++i) members[fmt::format("n{}", i)] = true;
  schema("schema: 14,000 members", {{"type", "object"}, {"properties", members}});
  schema("schema: allOf of large members",
         {{"allOf", {{{"properties", members}}, {{"additionalProperties", false}}}}});
  Json big = {{"description", std::string(200'000, 'x')}, {"anyOf", Json::array()}};
  for (int i = 0; i < 3000; ++i) big["anyOf"].push_back({{"type", "object"}});
  big["type"] = "object";
  schema("schema: anyOf beside a large text", big);
  Json deep = Json::object();
  for (int i = 0; i < 100; ++i) deep = {{"anyOf", {deep, {{"$ref", "#"}}}}};
  schema("schema: anyOf of itself", deep);
  Json powers = {{"$defs", Json::object()}};
  for (int i = 0; i < 60; ++i) {
    const std::string next = fmt::format("#/$defs/d{}", i + 1);
    powers["$defs"][fmt::format("d{}", i)] = {
        {"allOf", {{{"$ref", next}}, {{"$ref", next}, {"minLength", i}}}}};
  }
  powers["$defs"]["d60"] = {{"type", "string"}};
  powers["$ref"] = "#/$defs/d0";
  schema("schema: references doubling", powers);
}

void hostile_tools() {
  Json many = Json::array();
  for (int i = 0; i < 100; ++i) {
    Json properties = Json::object();
    for (int k = 0; k < 40; ++k) {
      properties[fmt::format("p{}", k)] = text_with(fmt::format("^.*[a{}].{{30}}$", k % 10));
    }
    many.push_back({{"name", fmt::format("tool_{}", i)},
                    {"parameters", {{"type", "object"}, {"properties", properties}}}});
  }
  tools("tools: 100 x 40 patterns", many);
  Json medium = many;
  for (Json& tool : medium) {
    for (auto& [name, value] : tool["parameters"]["properties"].items()) {
      value["pattern"] = "^[a-z]*[a" + name + "].{6}$";
    }
  }
  tools("tools: 100 x 40 small patterns", medium);
  Json plain = Json::array();
  for (int i = 0; i < 512; ++i) {
    Json properties = Json::object();
    for (int k = 0; k < 12; ++k)
      properties[fmt::format("name_{}", k)] = {{"type", k % 3 == 0 ? "integer" : "string"}};
    plain.push_back({{"name", fmt::format("tool_{}", i)},
                     {"parameters", {{"type", "object"}, {"properties", properties}}}});
  }
  tools("tools: 512 honest ones", plain);
  plain[77]["parameters"]["properties"]["name_1"]["pattern"] = "^.*[a].{30}$";
  tools("tools: one hostile among 512", plain);
  Json values = Json::array();
  for (int i = 0; i < 300; ++i) {
    Json list = Json::array();
    for (int k = 0; k < 200; ++k) list.push_back(fmt::format("v{}_{}", i, k * 7919 % 1009));
    values.push_back(
        {{"name", fmt::format("tool_{}", i)},
         {"parameters", {{"type", "object"}, {"properties", {{"v", {{"enum", list}}}}}}}});
  }
  tools("tools: 300 x 200 values", values);
}

}  // namespace
}  // namespace penstock

int main() {
  penstock::hostile_gbnf();
  penstock::hostile_schemas();
  penstock::hostile_tools();
}
