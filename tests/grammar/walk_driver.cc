// Texts drawn evenly among the tokens that a grammar allows, for walks_test.py: one JSON object a
// line in, one out for each walk.
//
//   {"schema": {...}, "walks": N, "seed": S}                -> {"text": "..."}
//   {"tools": [...], "form": "tagged" | "json", ...}        -> {"text": "...", "calls": [{"name":
//   "...", "arguments": "..."}], "left_out": [...]}
//
// The texts of calls are taken apart by AnswerParser, so that both sides of a call are tested
// against each other and against a validator that is not ours.
#include <fmt/format.h>

#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "dialogue/answer_parser.h"
#include "grammar/grammar.h"
#include "grammar/json_schema.h"
#include "grammar/test_grammar.h"
#include "grammar/tool_grammar.h"

namespace penstock {
namespace {

Json calls_in(const std::string& text, ToolForm form, const ToolTypes& types) {
  AnswerParser parser({.form = form}, types);
  std::vector<AnswerEvent> events = parser.push(text);
  for (AnswerEvent& event : parser.finish(AnswerParser::Ending::kEnded)) {
    events.push_back(std::move(event));
  }
  Json calls = Json::array();
  for (const AnswerEvent& event : events) {
    if (event.kind == AnswerEvent::Kind::kCallBegin) {
      calls.push_back({{"name", event.text}, {"arguments", ""}});
    } else if (event.kind == AnswerEvent::Kind::kArguments) {
      calls.back()["arguments"].get_ref<std::string&>() += event.text;
    } else if (event.kind == AnswerEvent::Kind::kContent) {
      calls.push_back({{"content", event.text}});
    }
  }
  return calls;
}

Result<void> walk(const std::string& line) {
  const Json request = PENSTOCK_TRY(parse_json(line, "line"));
  const int64_t walks = PENSTOCK_TRY(json_int(request, "walks", "line", 1, 100'000));
  std::mt19937_64 random(
      static_cast<uint64_t>(PENSTOCK_TRY(json_int(request, "seed", "line", 0, INT64_MAX))));
  const auto each = [&](const Grammar& grammar, auto describe) {
    for (int64_t i = 0; i < walks; ++i) {
      const std::string text = random_text(grammar, random, 0.3, 40);
      if (!text.empty()) std::cout << to_text(describe(text)) << "\n";
    }
  };
  if (const Json* schema = json_find(request, "schema")) {
    const GrammarSource source = PENSTOCK_TRY(json_schema_grammar(*schema));
    const Grammar grammar = PENSTOCK_TRY(Grammar::compile(source));
    each(grammar, [](const std::string& text) { return Json{{"text", text}}; });
    return {};
  }
  const Json& tools = request.at("tools");
  ToolGrammarOptions options;
  options.form = request.at("form") == "json" ? ToolForm::kJson : ToolForm::kTagged;
  options.choice.kind = ToolChoice::Kind::kRequired;
  const ToolGrammar made = PENSTOCK_TRY(tool_grammar(tools, options));
  const ToolTypes types = PENSTOCK_TRY(ToolTypes::create(tools));
  each(made.grammar, [&](const std::string& text) {
    return Json{{"text", text},
                {"calls", calls_in(text, options.form, types)},
                {"left_out", made.left_out}};
  });
  return {};
}

}  // namespace
}  // namespace penstock

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const auto result = penstock::walk(line);
    if (!result) std::cout << penstock::to_text({{"error", result.error().message}}) << "\n";
    std::cout << "{\"end\": true}" << std::endl;
  }
}
