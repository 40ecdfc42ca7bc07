// Answers of a model with tools as grammars: free text, then calls that cannot be wrong.
//
// Two forms of a call are known, told apart by the checkpoint's chat template (tool_form_of):
//
//   kTagged  <tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n
//            </tool_call>, texts as they are and everything else as JSON (Qwen3.5, Qwen3-Coder)
//   kJson    <tool_call>\n{"name": "NAME", "arguments": {...}}\n</tool_call> (Qwen3, Hermes)
//
// Free text may be anything in which no call begins; from <tool_call> (or <function=) on every
// token is held to the tools that exist and to their schemas. Parameters come in any order, each
// at most once, those that are required always, others only where the schema names them. A call
// may also begin inside the reasoning, as the parser accepts it there.
//
// Not offered although a schema may allow it: "arguments" before "name"; in a parameter that may
// be a text or something else, texts that read as the something else (they would be taken for it).
//
// Threads  plain functions.
// Limits   kToolsMax, kToolBytesMax; then those of json_schema.h, and work (work.h) for all of them
//          together. A tool whose schema is beyond them takes anything, and is named.
// Errors   kInvalidArgument: no list of functions, a name that no call can carry, an unknown name
//          as the choice.
// Source   the chat templates of Qwen3.5 and Qwen3.
// See also dialogue/answer_parser.h reads what this writes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "grammar/expression.h"
#include "grammar/grammar.h"

namespace penstock {

inline constexpr size_t kToolsMax = 512;
inline constexpr size_t kToolBytesMax = 1024 * 1024;

// What a model's reasoning stands between.
inline constexpr std::string_view kThinkBegin = "<think>";
inline constexpr std::string_view kThinkEnd = "</think>";

enum class ToolForm : uint8_t { kTagged, kJson };

// The form that a chat template asks for; nothing if it knows no tools.
std::optional<ToolForm> tool_form_of(std::string_view template_source);

struct ToolChoice {
  enum class Kind : uint8_t {
    kAuto,      // text, calls, or text and then calls
    kRequired,  // at least one call and no text before it
  };
  Kind kind = Kind::kAuto;
  std::string name = {};  // only this tool; empty: any
  bool allows_several = true;
};

struct ToolGrammarOptions {
  ToolForm form = ToolForm::kTagged;
  ToolChoice choice = {};
  bool begins_in_reasoning = false;  // the prompt has opened <think>
};

struct ToolGrammar {
  Grammar grammar;
  std::vector<std::string> left_out;  // "TOOL: KEYWORD", unconstrained
};

// tools: an array as in the OpenAI API.
Result<ToolGrammar> tool_grammar(const Json& tools, const ToolGrammarOptions& options);

// The same grammar behind a reasoning: anything up to </think>, then what was the root.
void begin_in_reasoning(GrammarSource& source);

// The name and the schema of a tool's parameters; an error for what is no function.
struct ToolFunction {
  std::string name;
  Json parameters;  // {} where there are none
};
Result<std::vector<ToolFunction>> tool_functions(const Json& tools);

}  // namespace penstock
