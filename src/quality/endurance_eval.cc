#include "quality/endurance_eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "dialogue/conversation.h"

namespace penstock {
namespace {

constexpr size_t kRepeatedTokens = 8;
constexpr size_t kPeriodMax = 64, kLoopTokensMin = 64, kLoopTimes = 4;
constexpr int64_t kRecallLengthMin = 512;
constexpr int kPlaces = 10;
constexpr int64_t kRecallAnswerTokens = 48;
constexpr int64_t kRecallFrameTokens = 192;  // of template, question and code, with room to spare

Result<GenerateResult> generate(Engine& engine, Session& session, std::span<const TokenId> prompt,
                                GenerateOptions options, const LongWishes& wishes,
                                const std::stop_token& stop) {
  const std::vector<TokenId>& ends = engine.stop_ids();
  options.stop_ids.insert(options.stop_ids.end(), ends.begin(), ends.end());
  options.on_route = wishes.on_route;
  GenerateResult result = PENSTOCK_TRY(session.generate(prompt, options, stop));
  if (result.finish == FinishReason::kCancelled) {
    return Error{ErrorCode::kCancelled, "interrupted"};
  }
  return result;
}

// The texts one behind the other, over and over.
std::vector<TokenId> filler(std::span<const EvalText> texts, int64_t length) {
  std::vector<TokenId> ids;
  for (size_t i = 0; std::ssize(ids) < length; i = (i + 1) % texts.size()) {
    ids.insert(ids.end(), texts[i].ids.begin(), texts[i].ids.end());
  }
  ids.resize(static_cast<size_t>(length));
  return ids;
}

// Five digits that look like nothing.
int64_t code_of(int64_t length, int place) {
  return 10'007 + (length * 7919 + place * 104'729) % 89'989;
}

Conversation question(const Tokenizer& tokenizer, std::span<const TokenId> text, int place) {
  const size_t before = text.size() * (2 * static_cast<size_t>(place) + 1) / (2 * kPlaces);
  const int64_t code = code_of(std::ssize(text), place);
  const std::string content = fmt::format(
      "Read the text and answer.\n\n{}\n\nThe secret code is {}.\n\n{}\n\nWhat is the secret code?",
      tokenizer.decode(text.first(before), true), code,
      tokenizer.decode(text.subspan(before), true));
  Conversation conversation;
  conversation.messages = Json::array({Json{{"role", "user"}, {"content", content}}});
  conversation.thinking = false;
  return conversation;
}

bool has_tokens(std::span<const EvalText> texts) {
  return std::ranges::any_of(texts, [](const EvalText& text) { return !text.ids.empty(); });
}

}  // namespace

double repeated_share(std::span<const TokenId> tokens) {
  if (tokens.size() < kRepeatedTokens) return 0;
  std::set<std::vector<TokenId>> seen;
  size_t repeated = 0;
  for (size_t i = 0; i + kRepeatedTokens <= tokens.size(); ++i) {
    const auto part = tokens.subspan(i, kRepeatedTokens);
    repeated += seen.emplace(part.begin(), part.end()).second ? 0 : 1;
  }
  return static_cast<double>(repeated) / static_cast<double>(tokens.size());
}

bool ends_in_loop(std::span<const TokenId> tokens) {
  for (size_t period = 1; period <= kPeriodMax; ++period) {
    const size_t length = std::max(kLoopTimes * period, kLoopTokensMin);
    if (length > tokens.size()) continue;
    const auto end = tokens.last(length);
    if (std::ranges::equal(end.subspan(period), end.first(length - period))) return true;
  }
  return false;
}

Result<EnduranceOutcome> evaluate_endurance(Engine& engine, Session& session,
                                            std::span<const EvalText> texts, int64_t count,
                                            const LongWishes& wishes, const std::stop_token& stop) {
  if (session.context() < kEndurancePromptTokens + kEnduranceTokens) {
    return invalid_argument(fmt::format("--generations needs a context of {} tokens (--context)",
                                        kEndurancePromptTokens + kEnduranceTokens));
  }
  EnduranceOutcome outcome;
  for (const EvalText& text : texts) {
    if (outcome.early.of == count) break;
    if (std::ssize(text.ids) < kEndurancePromptTokens) continue;
    if (wishes.progress) {
      wishes.progress(static_cast<uint64_t>(outcome.early.of), static_cast<uint64_t>(count));
    }
    GenerateOptions options;
    options.sampling = engine.sampling_defaults();
    options.sampling.seed = static_cast<uint64_t>(outcome.early.of);
    options.max_tokens = kEnduranceTokens;
    const auto prompt = std::span(text.ids).first(static_cast<size_t>(kEndurancePromptTokens));
    const GenerateResult result =
        PENSTOCK_TRY(generate(engine, session, prompt, options, wishes, stop));
    outcome.tokens += std::ssize(result.tokens);
    outcome.repeated += repeated_share(result.tokens);
    outcome.loops.add(ends_in_loop(result.tokens));
    outcome.early.add(result.finish == FinishReason::kStop);
  }
  if (outcome.early.of == 0) {
    return invalid_argument(fmt::format("--generations: no text has the {} tokens to begin with",
                                        kEndurancePromptTokens));
  }
  outcome.repeated /= static_cast<double>(outcome.early.of);
  return outcome;
}

Result<std::vector<RecallOutcome>> evaluate_recall(Engine& engine, Session& session,
                                                   std::span<const EvalText> texts,
                                                   const LongWishes& wishes,
                                                   const std::stop_token& stop) {
  PENSTOCK_TRY(check_can_chat(engine.texts()));
  const Tokenizer* tokenizer = PENSTOCK_TRY(tokenizer_of(engine.texts()));
  if (!has_tokens(texts)) return invalid_argument("--recall needs texts to hide a code in");
  std::vector<int64_t> lengths;
  for (int64_t length = kRecallLengthMin;
       length + kRecallFrameTokens + kRecallAnswerTokens <= session.context(); length *= 2) {
    lengths.push_back(length);
  }
  if (lengths.empty()) {
    return invalid_argument(
        fmt::format("--recall needs a context of {} tokens (--context)",
                    kRecallLengthMin + kRecallFrameTokens + kRecallAnswerTokens));
  }
  std::vector<RecallOutcome> outcomes;
  for (const int64_t length : lengths) {
    const std::vector<TokenId> text = filler(texts, length);
    RecallOutcome outcome{.length = length, .found = {}};
    for (int place = 0; place < kPlaces; ++place) {
      if (wishes.progress) {
        wishes.progress(outcomes.size() * kPlaces + static_cast<size_t>(place),
                        lengths.size() * kPlaces);
      }
      const ChatPrompt prompt =
          PENSTOCK_TRY(make_chat_prompt(engine.texts(), question(*tokenizer, text, place)));
      GenerateOptions options;
      options.max_tokens = kRecallAnswerTokens;
      options.stop_ids = prompt.stop_ids;
      const GenerateResult result =
          PENSTOCK_TRY(generate(engine, session, prompt.tokens, options, wishes, stop));
      const std::string answer = tokenizer->decode(result.tokens, true);
      outcome.found.add(answer.find(std::to_string(code_of(length, place))) != std::string::npos);
    }
    outcomes.push_back(outcome);
  }
  return outcomes;
}

}  // namespace penstock
