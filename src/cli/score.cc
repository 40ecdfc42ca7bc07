// score: how well a model predicts texts, for docs/quality.md.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/drive_report.h"
#include "cli/json_lines.h"
#include "cli/loading.h"
#include "cli/progress.h"
#include "dialogue/conversation.h"
#include "quality/text_eval.h"

namespace penstock {
namespace {

struct Totals {
  size_t texts = 0, bytes = 0;
  TextScore score;
};

Result<Totals> score_texts(Call& call, Engine& engine, JsonLines& lines) {
  const Tokenizer* tokenizer = PENSTOCK_TRY(tokenizer_of(engine.texts()));
  Session session = PENSTOCK_TRY(engine.new_session());
  TraceFile trace(call, engine);
  Progress progress(call.terminal, "scoring", Progress::Unit::kItems);
  const std::stop_token stop = call.interrupt.token();
  const int64_t window_tokens = std::min(kScoreWindowTokens, engine.plan_request().context);
  if (window_tokens < kScoreWindowTokens) {
    call.terminal.warning(fmt::format("windows of {} tokens, as the context allows, instead of {}",
                                      window_tokens, kScoreWindowTokens));
  }
  TextEval eval(session, window_tokens);
  Totals totals;
  while (const std::optional<Json> line = PENSTOCK_TRY(lines.next())) {
    if (!call.output.is_usable()) break;
    progress.update(totals.texts, lines.count());
    const std::string text = PENSTOCK_TRY(json_string(*line, "text", id_text(*line)));
    trace.begin_sequence();
    const TextScore score = PENSTOCK_TRY(eval.score(0, tokenizer->encode(text), stop));
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
  return std::min(kScoreWindowTokens, files.config.context_max());
}

}  // namespace

Result<int> score_verb(Call& call) {
  JsonLines lines = PENSTOCK_TRY(JsonLines::open(call.storage, call.settings, "texts"));
  EngineOptions options = PENSTOCK_TRY(engine_options(call));
  if (options.context == 0) options.context = PENSTOCK_TRY(context_for_windows(call, options));
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  const Totals totals = PENSTOCK_TRY(score_texts(call, *engine, lines));
  tell_drives(call, engine->experts().drives());
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
