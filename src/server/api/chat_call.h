// What a client asks for, whichever protocol it speaks: a conversation, how to answer it, and how to
// tell the answer. The protocols read their requests into this; from here on there is one path.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dialogue/conversation.h"
#include "server/api/fields.h"
#include "server/api/served_model.h"
#include "server/generator.h"

namespace penstock {

enum class CallChoice { kAuto, kNever, kRequired, kNamed };

struct ChatCall {
  Conversation conversation;
  CallChoice tool_choice = CallChoice::kAuto;
  std::string tool_name;  // kNamed
  bool parallel_calls = true;
  std::optional<Json> schema;                    // the content must be such JSON; true: any object
  std::string grammar;                           // GBNF, in place of a schema
  std::string format_field = "response_format";  // where the schema stood
  GenerationRequest generation;                  // the prompt is still missing
  std::string prompt_text;                       // its text, where a template made it

  bool echoes = false;  // the prompt is told before the answer
  bool streams = false;
  bool includes_usage = false;
  bool tells_progress = false;  // return_progress
  bool tells_timings_per_token = false;
  bool tells_tokens = false;  // return_tokens
  bool splits_reasoning = true;
  int ping_interval_ms = 10'000;     // of a stream; 0: none
  std::vector<std::string> unknown;  // fields that nobody asked for
  std::vector<std::string> ignored;  // these, and what else X-Penstock-Ignored names

  bool has_tools() const { return conversation.tools.is_array() && !conversation.tools.empty(); }
};

// Fields that the chat of OpenAI and plain completions have in common.
void read_reply_options(Fields& fields, const ServedModel& model, ChatCall& call);

// tool_choice and parallel_tool_calls as OpenAI has them, after the tools. `named`: the tool that an
// object names; nullopt where it said itself what is wrong with it.
void read_tool_choice(Fields& fields, ChatCall& call,
                      const std::function<std::optional<std::string>(const Json&)>& named);

// The thinking switch under all its names, and its budget.
void read_thinking(Fields& fields, const ServedModel& model, ChatCall& call);

// What nobody asked for in an object inside of the body.
void name_unknown(const Fields& inner, ChatCall& call);

// Names what nobody asked for, or refuses it (--strict-fields); and other models (--strict-model).
void finish_reading(Fields& fields, const ServedModel& model, ChatCall& call);

// Renders the conversation to tokens and compiles what constrains the answer.
std::optional<ApiError> prepare(const ServedModel& model, ChatCall& call);

}  // namespace penstock
