// What long generations and long prompts do to a model: texts that repeat themselves or break off, and
// facts that are not found again. Quantisation shows here before it shows in perplexity.
//
//   endurance  the beginnings of texts are continued by up to 1,024 tokens, drawn as the model's own
//              defaults say, with the generation's number as seed
//   recall     a code stands somewhere in a long text; it is asked for behind it
//
// Threads  the computing thread
// Memory   a prompt and an answer
// Errors   kInvalidArgument: no text is long enough, the context is too short; the session's
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/engine.h"
#include "quality/significance.h"
#include "quality/text_eval.h"

namespace penstock {

inline constexpr int64_t kEnduranceTokens = 1024;
inline constexpr int64_t kEndurancePromptTokens = 64;

struct EnduranceOutcome {
  int64_t tokens = 0;
  double repeated = 0;  // mean over the generations: see repeated_share()
  Share loops;          // generations that ended in one
  Share early;          // that the model ended itself, before the limit
};

struct LongWishes {
  EvalProgress progress = {};
  RouteObserver on_route = {};
};

// `count` of them, of the first texts that are long enough.
Result<EnduranceOutcome> evaluate_endurance(Engine& engine, Session& session,
                                            std::span<const EvalText> texts, int64_t count,
                                            const LongWishes& wishes, const std::stop_token& stop);

// The share of a text's tokens that end eight tokens which stood before in it.
double repeated_share(std::span<const TokenId> tokens);
// Whether the same 1 to 64 tokens come at least four times, and over 64 tokens, at the end.
bool ends_in_loop(std::span<const TokenId> tokens);

struct RecallOutcome {
  int64_t length = 0;  // tokens of the text
  Share found;
};

// Lengths are powers of two from 512 on that the context holds; at each, ten places of the code.
Result<std::vector<RecallOutcome>> evaluate_recall(Engine& engine, Session& session,
                                                   std::span<const EvalText> texts,
                                                   const LongWishes& wishes,
                                                   const std::stop_token& stop);

}  // namespace penstock
