#include "grammar/json_schema.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/test_grammar.h"

namespace penstock {
namespace {

Json parsed(std::string_view text) {
  auto json = parse_json(text, "test");
  PENSTOCK_CHECK(json.has_value());
  return *std::move(json);
}

Result<Grammar> compiled(std::string_view schema) {
  const Json json = parsed(schema);
  const GrammarSource source = PENSTOCK_TRY(json_schema_grammar(json));
  return Grammar::compile(source);
}

struct SchemaCase {
  const char* schema;
  std::vector<const char*> fits;
  std::vector<const char*> does_not;
};

const std::vector<SchemaCase> kValues = {
    {R"({"type": "boolean"})", {"true", " false\n"}, {"tru", "1", "\"true\"", ""}},
    {R"({"type": "null"})", {"null"}, {"nil"}},
    {R"({"type": "integer"})",
     {"0", "-1", "9223372036854775807", "-9223372036854775808"},
     {"00", "1.0", "1e2", "-", "9223372036854775808", "+1"}},
    {R"({"type": "number"})",
     {"0", "-0", "1.50", "1e5", "-2.5E-3", "1e259", "1E+2"},
     {"01", ".5", "1.", "1e", "1e400", "NaN", "--1"}},
    {R"({"type": "integer", "minimum": 3, "maximum": 120})",
     {"3", "9", "10", "99", "100", "120"},
     {"2", "0", "121", "200", "-5", "03"}},
    {R"({"type": "integer", "exclusiveMinimum": -12, "exclusiveMaximum": 5})",
     {"-11", "-9", "0", "4"},
     {"-12", "5", "-20", "44"}},
    {R"({"type": "integer", "minimum": 0.5, "maximum": 2.5})", {"1", "2"}, {"0", "3"}},
    {R"({"type": "integer", "minimum": -2.5, "maximum": -0.5})", {"-1", "-2"}, {"-3", "0"}},
    {R"({"type": "integer", "minimum": 5})", {"5", "77", "1000"}, {"4", "-7"}},
    {R"({"type": "number", "minimum": 0, "maximum": 1})",
     {"0", "0.0", "0.99", "1", "1.0", "1.000", "-0", "-0.0"},
     {"1.01", "2", "-0.1", "1.001"}},
    {R"({"type": "number", "exclusiveMinimum": 0, "maximum": 99.5})",
     {"0.001", "12.75", "99.5", "99.4999", "99.50"},
     {"0", "0.0", "99.51", "100", "-1"}},
    {R"({"type": "number", "minimum": -1.25, "exclusiveMaximum": 1.5})",
     {"-1.25", "-1.2", "0", "1.49", "1"},
     {"-1.26", "1.5", "-2", "1.6", "1.50"}},
    {R"({"type": "number", "minimum": 1.25, "maximum": 1.75})",
     {"1.25", "1.3", "1.75", "1.5"},
     {"1", "1.2", "1.76", "2"}},
    {R"({"type": "string"})",
     {R"("")", R"("a\n\u00e9\ud83d\udc4d/\/")", "\"é世👍\""},
     {R"(")", "\"\n\"", R"("\ud83d")", R"("\x")", "\"\xFF\"", R"("\u12")"}},
    {R"({"type": "string", "minLength": 2, "maxLength": 3})",
     {R"("ab")", R"("abc")", R"("é世👍")", R"("\n\u00e9\ud83d\udc4d")"},
     {R"("a")", R"("abcd")", R"("")", R"("\n")"}},
    {R"({"type": "string", "pattern": "^[a-c]+\\d{2}$"})",
     {R"("a12")", R"("abc99")"},
     {R"("12")", R"("a1")", R"("xa12")"}},
    {R"({"type": "string", "pattern": "b"})", {R"("b")", R"("abc")", R"("\nb")"}, {R"("ac")"}},
    {R"({"type": "string", "pattern": "^a|b$"})", {R"("ax")", R"("xb")"}, {R"("xa")"}},
    {R"({"type": "string", "pattern": "^(?:x|yz)*$", "minLength": 2, "maxLength": 4})",
     {R"("xx")", R"("yz")", R"("xyz")", R"("xxyz")"},
     {R"("x")", R"("xxxxx")", R"("yzyzx")", R"("xy")"}},
    {R"({"type": "string", "pattern": "^[^\"\\\\]$"})",
     {R"("a")", R"("\n")"},
     {R"("\"")", R"("\\")"}},
    {R"({"type": "string", "format": "date"})",
     {R"("2024-02-29")", R"("2026-11-27")", R"("2000-02-29")"},
     {R"("2023-02-29")", R"("1900-02-29")", R"("2024-13-01")", R"("2024-04-31")"}},
    {R"({"type": "string", "format": "date-time"})",
     {R"("2024-01-01T10:00:00Z")", R"("2024-01-01T10:00:00.5+02:00")"},
     {R"("2024-01-01")", R"("2024-01-01T25:00:00Z")", R"("2024-01-01T10:00:00")"}},
    {R"({"type": "string", "format": "uuid"})",
     {R"("123e4567-e89b-12d3-a456-426614174000")"},
     {R"("123e4567")"}},
    {R"({"type": "string", "format": "ipv4"})",
     {R"("10.0.255.1")"},
     {R"("10.0.256.1")", R"("1.2.3")"}},
    {R"({"type": "string", "format": "ipv6"})",
     {R"("::1")", R"("fe80::1:2")", R"("1:2:3:4:5:6:7:8")", R"("::")"},
     {R"("1:2")", R"("1::2::3")", R"("1:2:3:4:5:6:7:8:9")"}},
    {R"({"type": "string", "format": "email"})", {R"("a.b@c.org")"}, {R"("a@")", R"("@b")"}},
    {R"({"enum": ["a", 1, null, [1, {"x": "y"}]]})",
     {R"("a")", "1", "null", R"([ 1,{"x":"y"} ])"},
     {R"("b")", "2", "[1]"}},
    {R"({"const": {"a": 1, "b": "é"}})",
     {R"({"a":1,"b":"é"})", R"({ "b" : "\u00E9", "a": 1 })"},
     {R"({"a":1})", R"({"a":1,"b":"é","c":1})"}},
    {R"({"type": ["string", "null"]})", {"null", R"("x")"}, {"1"}},
    {R"({"type": "integer", "nullable": true})", {"null", "1"}, {R"("x")"}},
    {R"({"type": "string", "enum": ["x", 1]})", {R"("x")"}, {"1"}},
    {R"(true)", {"1", R"({"a":[{}, []]})"}, {"", "{"}},
    {R"({})", {"null", "[[[]]]"}, {"[,]"}},
};

const std::vector<SchemaCase> kStructures = {
    {R"({"type": "array"})", {"[]", "[1, \"a\", [null]]", "[ ]"}, {"[1,]", "[", "{}"}},
    {R"({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3})",
     {"[1,2]", "[1, 2, 3]"},
     {"[]", "[1]", "[1,2,3,4]", "[1,\"a\"]"}},
    {R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"}},
    {R"({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false})",
     {"[]", "[\"a\"]", "[\"a\",1]"},
     {"[1]", "[\"a\",1,1]"}},
    {R"({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}, "minItems": 1})",
     {"[\"a\"]", "[\"a\",null,null]"},
     {"[]", "[null]", "[\"a\",1]"}},
    {R"({"type": "object"})", {"{}", R"({"a":1,"b":{}})"}, {R"({"a"})", R"({a:1})", R"({"a":1,})"}},
    {R"({"type": "object", "properties": {"a": {"type": "integer"}, "ab": {"type": "string"}},
         "required": ["a"], "additionalProperties": false})",
     {R"({"a":1})", R"({"ab":"x","a":1})", "{\n  \"a\": 1,\n  \"ab\": \"x\"\n}"},
     {"{}", R"({"ab":"x"})", R"({"a":1,"a":2})", R"({"a":"x"})", R"({"a":1,"b":2})",
      R"({"a":1,})"}},
    {R"({"type": "object", "properties": {"a": {"type": "integer"}}})",
     {"{}", R"({"b":"x"})", R"({"b":"x","a":1,"c":null})", R"({"aa":"x"})"},
     {R"({"a":"x"})", R"({"b":1,"a":"x"})"}},
    {R"({"type": "object", "properties": {"é/\n": {"type": "integer"}}, "additionalProperties": {"type": "null"}})",
     {"{\"é/\\n\":1}", R"({"\u00e9\/\u000a":1})", R"({"é":null})"},
     {R"({"\u00e9\/\u000a":null})", "{\"é/\\n\":null}"}},
    {R"({"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}})",
     {R"({"x":1})", R"({"y":2,"x":1})"},
     {"{}", R"({"x":"a"})"}},
    {R"({"anyOf": [{"type": "string"}, {"type": "object", "properties": {"k": {"const": 1}},
         "required": ["k"], "additionalProperties": false}]})",
     {R"("a")", R"({"k":1})"},
     {R"({"k":2})", "1"}},
    {R"({"oneOf": [
         {"type": "object", "properties": {"t": {"const": "a"}, "v": {"type": "integer"}}, "required": ["t", "v"]},
         {"type": "object", "properties": {"t": {"const": "b"}, "v": {"type": "string"}}, "required": ["t", "v"]}]})",
     {R"({"t":"a","v":1})", R"({"v":"x","t":"b"})"},
     {R"({"t":"a","v":"x"})", R"({"v":1,"t":"b"})"}},
    {R"({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
         {"properties": {"b": {"type": "string"}, "a": {"minimum": 5}}, "required": ["b"]}]})",
     {R"({"a":5,"b":""})"},
     {R"({"a":4,"b":""})", R"({"a":5})"}},
    {R"({"type": "object", "properties": {"x": {"type": "integer"}}, "anyOf": [{"required": ["x"]}, {"required": ["y"]}]})",
     {R"({"x":1})", R"({"y":1})", R"({"y":1,"x":1})"},
     {"{}", R"({"x":"a"})"}},
    {R"({"$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer"},
         "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v", "next"],
         "additionalProperties": false}}, "$ref": "#/$defs/node"})",
     {R"({"v":1,"next":null})", R"({"v":1,"next":{"next":{"v":3,"next":null},"v":2}})"},
     {R"({"v":1})", R"({"v":1,"next":{}})"}},
    {R"({"type": "object", "properties": {"v": {"type": "integer"}, "kids": {"type": "array",
         "items": {"$ref": "#"}}}, "required": ["v"], "additionalProperties": false})",
     {R"({"v":1})", R"({"kids":[{"v":2,"kids":[]},{"v":3}],"v":1})"},
     {R"({"kids":[]})", R"({"v":1,"kids":[{}]})"}},
    {R"({"type": "array", "items": {"$ref": "#"}})", {"[]", "[[],[[]]]"}, {"[1]"}},
    {R"({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "null"}}})",
     {"null"},
     {"1"}},
};

void check(const std::vector<SchemaCase>& cases) {
  for (const SchemaCase& c : cases) {
    const auto grammar = compiled(c.schema);
    ASSERT_TRUE(grammar) << c.schema << ": " << grammar.error().message;
    for (const char* text : c.fits) EXPECT_TRUE(fits(*grammar, text)) << c.schema << "\n" << text;
    for (const char* text : c.does_not) {
      EXPECT_FALSE(fits(*grammar, text)) << c.schema << "\n" << text;
    }
  }
}

TEST(JsonSchema, allows_the_values_that_the_schema_allows) {
  check(kValues);
}

TEST(JsonSchema, allows_the_structures_that_the_schema_allows) {
  check(kStructures);
}

TEST(JsonSchema, refuses_by_name_what_it_does_not_obey) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"s({"type": "array", "uniqueItems": true})s", "\"uniqueItems\" is not supported"},
      {R"s({"properties": {"a": {"not": {}}}})s", "schema.properties.a: \"not\""},
      {R"s({"patternProperties": {}})s", "\"patternProperties\""},
      {R"s({"if": {}, "then": {}})s", "\"if\""},
      {R"s({"type": "number", "multipleOf": 0.5})s", "\"multipleOf\""},
      {R"s({"type": "string", "format": "iri"})s", "\"format\" \"iri\" is not supported"},
      {R"s({"type": "string", "pattern": "(?=a)"})s", "(?=)"},
      {R"s({"type": "string", "pattern": "(a)\\1"})s", "\\1"},
      {R"s({"type": "string", "pattern": "\\bword"})s", "\\b"},
      {R"s({"type": "string", "pattern": "(a*)*{3}"})s", "repeats a repetition"},
      {R"s({"type": "string", "pattern": "["})s", "does not end"},
      {R"s({"type": "string", "pattern": "^.*a.{40}$"})s", "too complex"},
      {R"s({"type": "string", "pattern": "^(ab)*$", "minLength": 3, "maxLength": 3})s", "gaps"},
      {R"s({"type": "string", "pattern": "^ab$", "maxLength": 1})s",
       "no text of the allowed lengths"},
      {R"s({"oneOf": [{"type": "integer"}, {"type": "number"}]})s", "\"oneOf\""},
      {R"s({"type": "text"})s", "is not a type"},
      {R"s({"$ref": "http://x/y"})s", "points out of the schema"},
      {R"s({"$ref": "#/nowhere"})s", "points to nothing"},
      {R"s({"$ref": "#"})s", ""},
      {R"s({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]})s",
       ""},
      {R"s({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})s",
       "can never end"},
      {R"s({"type": "object", "properties": {"a": false}, "required": ["a"]})s",
       "no value can satisfy"},
      {R"s({"required": ["a"], "additionalProperties": false})s", "required but not allowed"},
      {R"s({"enum": []})s", "no value can satisfy"},
      {R"s({"anyOf": []})s", "must be an array that is not empty"},
      {R"s({"minLength": -1})s", "must be a whole number"},
      {R"s({"minItems": 3, "maxItems": 2})s", "\"minItems\" is above \"maxItems\""},
      {R"s(3)s", "must be an object or a boolean"},
      {R"s({"madeUp": 1})s", "\"madeUp\" is not supported"},
  };
  for (const auto& [schema, message] : cases) {
    const auto grammar = compiled(schema);
    ASSERT_FALSE(grammar) << schema;
    EXPECT_NE(grammar.error().message.find(message), std::string::npos)
        << schema << ": " << grammar.error().message;
  }
}

TEST(JsonSchema, hostile_schemas_end_soon) {
  std::string many = R"({"enum": [)";
  for (int i = 0; i < 20'000; ++i) many += "\"v" + std::to_string(i) + "\",";
  many += "\"\"]}";
  const auto enumeration = compiled(many);
  ASSERT_TRUE(enumeration) << enumeration.error().message;
  EXPECT_TRUE(fits(*enumeration, "\"v19999\""));
  EXPECT_FALSE(fits(*enumeration, "\"v20000\""));
  std::string deep;
  for (int i = 0; i < 60; ++i) deep += R"({"items":)";
  deep += "true" + std::string(60, '}');
  EXPECT_TRUE(compiled(deep));
  std::string product = "true";
  for (int i = 0; i < 12; ++i) product = R"({"anyOf":[)" + product + "," + product + "]}";
  static_cast<void>(compiled(product));
  EXPECT_TRUE(compiled(R"({"type": "string", "maxLength": 1000000})"));
  EXPECT_TRUE(compiled(
      R"({"type": "array", "items": {"type": "string", "maxLength": 500000}, "maxItems": 1000000})"));
}

TEST(JsonSchema, every_random_walk_ends_in_json) {
  std::mt19937_64 random(7);
  for (const auto* cases : {&kValues, &kStructures}) {
    for (const SchemaCase& c : *cases) {
      const auto grammar = compiled(c.schema);
      ASSERT_TRUE(grammar);
      SCOPED_TRACE(c.schema);
      for (int round = 0; round < 20; ++round) {
        const std::string text = random_text(*grammar, random, 0.3, 40);
        if (text.empty()) continue;
        const auto json = parse_json(text, "walk");
        EXPECT_TRUE(json || json.error().message.find("duplicate key") != std::string::npos)
            << c.schema << "\n"
            << text << "\n"
            << json.error().message;
      }
    }
  }
}

// Each within the limits of size; what they cost is in how their parts go together.
std::vector<Json> expensive_schemas() {
  std::vector<Json> all;
  Json members = Json::object();
  for (int i = 0; i < 6000; ++i) members["n" + std::to_string(i)] = true;
  all.push_back({{"properties", members}});
  all.back()["allOf"] = Json::array({Json{{"properties", members}, {"title", "x"}}});
  Json parts = Json::array();
  for (int i = 0; i < 300; ++i) {
    Json part = Json::object();
    for (int k = 0; k < 30; ++k) part["k" + std::to_string(i * 30 + k)] = true;
    parts.push_back(Json{{"properties", part}});
  }
  all.push_back(Json{{"allOf", parts}});
  Json beside = {{"description", std::string(200'000, 'x')}, {"type", "object"}};
  beside["anyOf"] = Json::array();
  for (int i = 0; i < 3000; ++i) beside["anyOf"].push_back(Json{{"type", "object"}});
  all.push_back(beside);
  Json kinds = Json::array();
  for (int i = 0; i < 2500; ++i) {
    Json kind = {{"type", "object"}, {"required", Json::array({"kind"})}};
    kind["properties"]["kind"]["const"] = i;
    kinds.push_back(kind);
  }
  all.push_back(Json{{"oneOf", kinds}});
  Json patterns = {{"type", "object"}};
  for (int i = 0; i < 120; ++i) {
    patterns["properties"]["p" + std::to_string(i)] = {{"type", "string"},
                                                       {"pattern", "^[a-z]*[ab].{9}$"}};
  }
  all.push_back(patterns);
  return all;
}

TEST(JsonSchema, what_is_expensive_is_refused_when_the_account_is_empty) {
  for (const Json& schema : expensive_schemas()) {
    GrammarWork work;
    const auto source = json_schema_grammar(schema, work);
    const auto grammar = source ? Grammar::compile(*source, work) : Result<Grammar>(source.error());
    ASSERT_FALSE(grammar) << to_text(schema).substr(0, 100);
    EXPECT_EQ(grammar.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(work.steps_left, 0u) << grammar.error().message;
  }
}

TEST(JsonSchema, an_account_serves_all_that_a_request_asks_for) {
  const Json schema = parsed(R"({"type": "string", "pattern": "^[a-z]*b.{4}$"})");
  GrammarWork work;
  int served = 0;
  while (served < 1000) {
    const auto source = json_schema_grammar(schema, work);
    if (!source || !Grammar::compile(*source, work)) break;
    ++served;
  }
  EXPECT_GT(served, 1);
  EXPECT_LT(served, 1000);
  EXPECT_EQ(work.steps_left, 0u);
}

}  // namespace
}  // namespace penstock
