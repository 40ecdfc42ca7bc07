// Any JSON as a schema, strict and as a tool's: no crash, no hang, no unbounded memory; what a walk
// through it writes is JSON.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "grammar/json_schema.h"
#include "grammar/tool_grammar.h"
#include "walk.h"

namespace penstock {
namespace {

void check_schema(const Json& schema, size_t seed) {
  const auto source = json_schema_grammar(schema);
  if (!source) return;
  const auto grammar = Grammar::compile(*source);
  if (!grammar) return;
  const Walked walked = walk_a_little(*grammar, seed);
  if (!walked.is_whole) return;
  const auto json = parse_json(walked.text, "walk");
  PENSTOCK_CHECK(json || json.error().message.find("duplicate key") != std::string::npos);
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto schema = parse_json(rest, "fuzz");
  if (!schema) return 0;
  if (data[0] % 3 == 0) {
    check_schema(*schema, size);
    return 0;
  }
  Json tool = Json::object();
  tool["name"] = "f";
  tool["parameters"] = *schema;
  ToolGrammarOptions options;
  options.form = data[0] % 3 == 1 ? ToolForm::kTagged : ToolForm::kJson;
  options.choice.kind = ToolChoice::Kind::kRequired;
  const auto made = tool_grammar(Json::array({tool}), options);
  if (made) static_cast<void>(walk_a_little(made->grammar, size));
  return 0;
}
