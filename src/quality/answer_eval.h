// How many items of a set a model answers as wanted: tool calls, JSON, answers; greedily, and with
// their answers held to a grammar.
//
// An item is a JSON object: id, messages, expected (the exact text of the answer up to the end of its
// turn), and optionally kind, tools, enable_thinking, schema. What a valid answer is follows from it:
//
//   with tools             calls and nothing else, at least one, each of a tool that is offered, whose
//                          arguments its schema allows (grammar/tool_grammar.h)
//   with schema            JSON that the schema allows
//   kind begins with json  a JSON object or list
//   else                   every answer
//
// An answer is exact when it equals `expected`, both without white space around them. Held to the same
// rule as a grammar, answers cannot be invalid but for a limit: what then is exact tells what of an
// item's failure was form.
//
// Threads  the computing thread
// Memory   the items
// Errors   kInvalidArgument and kUnsupported naming the item; the session's
#pragma once

#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "dialogue/constraints.h"
#include "dialogue/conversation.h"
#include "engine/engine.h"
#include "quality/base_file.h"
#include "quality/significance.h"
#include "quality/text_eval.h"

namespace penstock {

struct EvalItem {
  std::string id;
  std::string expected;
  ChatPrompt prompt;
  enum class Form : uint8_t { kAny, kCalls, kJson } form = Form::kAny;
  Json tools, schema;  // of kCalls; of kJson
};

struct EvalSet {
  std::string name;
  std::vector<EvalItem> items;
};

Result<EvalItem> eval_item(const ModelTexts& texts, const Json& item);

// Whether the base has this set with these prompts and limit. kInvalidArgument saying what differs.
Result<void> check_base_set(const BaseFile& base, const EvalSet& set, int64_t max_tokens);

struct AnswerShares {
  Share exact;
  std::optional<Share> valid;  // of the items that ask for a form
};

struct AnswerChange {  // from the base, item by item
  int64_t lost = 0, gained = 0;
  double p = 1;  // mcnemar()
};

struct SetOutcome {
  std::string name;
  AnswerShares free;
  std::optional<AnswerShares> constrained;  // of the items that ask for a form
  std::vector<BaseAnswer> answers;
  std::optional<AnswerChange> change;

  std::vector<std::string> wrong() const;  // ids
};

struct AnswerWishes {
  int64_t max_tokens = 200;
  bool constrained = false;
  const BaseFile* base = nullptr;
  EvalProgress progress = {};
  RouteObserver on_route = {};
};

class AnswerEval {
 public:
  // Texts with a tokenizer. Grammars are compiled when first needed.
  explicit AnswerEval(Engine& engine) : engine_(engine) {}

  Result<SetOutcome> evaluate(Session& session, const EvalSet& set, const AnswerWishes& wishes,
                              const std::stop_token& stop);

 private:
  struct Answer {
    std::string text;
    bool is_valid = false;
  };
  Result<Answer> answer(Session& session, const EvalItem& item, const AnswerWishes& wishes,
                        bool constrained, const std::stop_token& stop);
  Result<std::unique_ptr<TokenMask>> mask_of(const EvalItem& item);

  Engine& engine_;
  std::optional<Constraints> constraints_;
};

}  // namespace penstock
