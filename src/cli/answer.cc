// answer: a file of conversations, each answered greedily, for docs/quality.md.

#include <fmt/format.h>

#include "cli/drive_report.h"
#include "cli/figures.h"
#include "cli/generation.h"
#include "cli/json_lines.h"
#include "cli/loading.h"
#include "cli/progress.h"
#include "dialogue/conversation.h"

namespace penstock {
namespace {

struct Answer {
  std::string text;
  GenerateResult result;
};

Result<Answer> answer_item(Call& call, Engine& engine, Session& session, const Json& item,
                           std::stop_token stop) {
  const Conversation conversation = PENSTOCK_TRY(conversation_of_item(item));
  const ChatPrompt prompt = PENSTOCK_TRY(make_chat_prompt(engine.texts(), conversation));
  ReplyPrinter printer(*engine.tokenizer(), call.terminal, nullptr, prompt.opens_reasoning, {});
  GenerateResult result = PENSTOCK_TRY(generate_answer(
      call, engine, session,
      {prompt.tokens, SamplingOptions{}, call.settings.integer("max-tokens"), 0, prompt.stop_ids},
      &printer, std::move(stop)));
  return Answer{printer.text(), std::move(result)};
}

void print_answer(Call& call, const Json& item, const Answer& answer) {
  if (call.json()) {
    call.output.write_line(Json{{"id", item.at("id")},
                                {"text", answer.text},
                                {"tokens", answer.result.tokens.size()},
                                {"finish_reason", name_of(answer.result.finish)}});
    return;
  }
  call.output.write(fmt::format("--- {}\n{}\n", id_text(item), answer.text));
}

}  // namespace

Result<int> answer_verb(Call& call) {
  JsonLines items = PENSTOCK_TRY(JsonLines::open(call.storage, call.settings, "items"));
  const EngineOptions options = PENSTOCK_TRY(engine_options(call));
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  tell_endless_answers(call, *engine, true);
  Session session = PENSTOCK_TRY(engine->new_session());
  TraceFile trace(call, *engine);
  Progress progress(call.terminal, "answering", Progress::Unit::kItems);
  const std::stop_token stop = call.interrupt.token();
  uint64_t done = 0;
  while (const std::optional<Json> item = PENSTOCK_TRY(items.next())) {
    if (!call.output.is_usable()) break;
    progress.update(done++, items.count());
    trace.begin_sequence();
    const Result<Answer> answer = answer_item(call, *engine, session, *item, stop);
    if (!answer) return answer.error().with_context("item " + id_text(*item));
    if (answer->result.finish == FinishReason::kCancelled) {
      return Error{ErrorCode::kCancelled, fmt::format("interrupted at item {}", id_text(*item))};
    }
    print_answer(call, *item, *answer);
  }
  tell_drives(call, engine->experts().drives());
  PENSTOCK_TRY(trace.write());
  return kExitDone;
}

}  // namespace penstock
