// score: how well a model predicts texts, for docs/quality.md.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/json_lines.h"
#include "cli/loading.h"
#include "cli/progress.h"
#include "dialogue/conversation.h"

namespace penstock {
namespace {

// Long texts are judged in windows of this many predictions, each from an empty state, as the
// recorded reference scores are.
constexpr size_t kWindowTokens = 1024;

// -log softmax(logits)[target], in double.
double negative_log_likelihood(std::span<const float> logits, TokenId target) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(target)]);
}

struct Score {
  int64_t tokens = 0;  // predicted ones
  double nll = 0;      // nats
};

Result<Score> score_tokens(Session& session, std::span<const TokenId> ids, size_t window_tokens,
                           std::stop_token stop) {
  Score score;
  for (size_t begin = 0; begin + 1 < ids.size(); begin += window_tokens) {
    const size_t count = std::min(window_tokens, ids.size() - 1 - begin);
    const std::span<const TokenId> targets = ids.subspan(begin + 1, count);
    const auto add_row = [&](int64_t row, std::span<const float> logits) {
      score.nll += negative_log_likelihood(logits, targets[static_cast<size_t>(row)]);
    };
    PENSTOCK_TRY(session.evaluate(ids.subspan(begin, count), add_row, {}, stop));
    score.tokens += static_cast<int64_t>(count);
  }
  if (!std::isfinite(score.nll)) {
    return Error{ErrorCode::kCorrupt, "the model's logits are not all numbers"};
  }
  return score;
}

struct Totals {
  size_t texts = 0, bytes = 0;
  Score score;
};

Result<Totals> score_texts(Call& call, Engine& engine, JsonLines& lines) {
  const Tokenizer* tokenizer = PENSTOCK_TRY(tokenizer_of(engine.texts()));
  Session session = PENSTOCK_TRY(engine.new_session());
  TraceFile trace(call, engine);
  Progress progress(call.terminal, "scoring", Progress::Unit::kItems);
  const std::stop_token stop = call.interrupt.token();
  const auto window_tokens =
      std::min(kWindowTokens, static_cast<size_t>(engine.plan_request().context));
  if (window_tokens < kWindowTokens) {
    call.terminal.warning(fmt::format("windows of {} tokens, as the context allows, instead of {}",
                                      window_tokens, kWindowTokens));
  }
  Totals totals;
  while (const std::optional<Json> line = PENSTOCK_TRY(lines.next())) {
    if (!call.output.is_usable()) break;
    progress.update(totals.texts, lines.count());
    const std::string text = PENSTOCK_TRY(json_string(*line, "text", id_text(*line)));
    trace.begin_sequence();
    const Score score =
        PENSTOCK_TRY(score_tokens(session, tokenizer->encode(text), window_tokens, stop));
    ++totals.texts;
    totals.bytes += text.size();
    totals.score.tokens += score.tokens;
    totals.score.nll += score.nll;
    if (call.json()) {
      call.output.write_line(Json{{"id", line->at("id")},
                                  {"tokens", score.tokens},
                                  {"nll", score.nll},
                                  {"bytes", text.size()}});
    }
  }
  PENSTOCK_TRY(trace.write());
  return totals;
}

// One window, or what the model can hold.
Result<int64_t> context_for_windows(const Call& call, const EngineOptions& options) {
  const ModelFiles files = PENSTOCK_TRY(open_model(call.storage, options.model));
  return std::min(int64_t{kWindowTokens}, files.config.context_max());
}

}  // namespace

Result<int> score_verb(Call& call) {
  JsonLines lines = PENSTOCK_TRY(JsonLines::open(call.storage, call.settings, "texts"));
  EngineOptions options = PENSTOCK_TRY(engine_options(call.settings));
  if (options.context == 0) options.context = PENSTOCK_TRY(context_for_windows(call, options));
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  const Totals totals = PENSTOCK_TRY(score_texts(call, *engine, lines));
  if (!call.json() && totals.score.tokens > 0) {
    const double nats = totals.score.nll / static_cast<double>(totals.score.tokens);
    call.output.write(
        fmt::format("{} texts, {} tokens: perplexity {:.4f}, {:.4f} bits per byte\n", totals.texts,
                    totals.score.tokens, std::exp(nats),
                    totals.score.nll / std::log(2.0) / static_cast<double>(totals.bytes)));
  }
  return kExitDone;
}

}  // namespace penstock
