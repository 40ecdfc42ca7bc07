// One answer on the command line: progress while the prompt is read, text as it comes, and a stop
// when nobody reads it any more. What run, chat and answer have in common.
//
// Errors  the session's; kInvalidArgument naming the flag
#pragma once

#include <string>
#include <vector>

#include "cli/program.h"
#include "cli/reply_printer.h"
#include "dialogue/conversation.h"
#include "engine/engine.h"

namespace penstock {

struct AnswerRequest {
  std::span<const TokenId> prompt;
  SamplingOptions sampling;
  int64_t max_tokens = 0;
  int64_t stable_tokens = 0;          // ChatPrompt::stable_tokens
  std::span<const TokenId> stop_ids;  // ChatPrompt::stop_ids
  TokenMask* mask = nullptr;          // which tokens may come; nullptr: all
};

// Warns where nothing but a limit will end an answer. `chats`: prompts are made by the template.
void tell_endless_answers(Call& call, const Engine& engine, bool chats);

// `sink` may be nullptr: a model without tokenizer has no text.
Result<GenerateResult> generate_answer(Call& call, Engine& engine, Session& session,
                                       const AnswerRequest& request, ReplySink* sink,
                                       const std::stop_token& stop);

// --stop: one text, or a JSON list of several. kInvalidArgument.
Result<std::vector<std::string>> stop_strings_of(const Settings& settings);

}  // namespace penstock
