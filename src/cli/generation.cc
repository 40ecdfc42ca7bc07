#include "cli/generation.h"

#include "cli/progress.h"
#include "dialogue/turn_end.h"

namespace penstock {

void tell_endless_answers(Call& call, const Engine& engine, bool chats) {
  if (!engine.stop_ids().empty() || (chats && turn_end(engine.texts()))) return;
  call.terminal.warning(
      "the model's files name no token that ends an answer: it goes on until --max-tokens or the "
      "context is full");
}

Result<GenerateResult> generate_answer(Call& call, Engine& engine, Session& session,
                                       const AnswerRequest& request, ReplyPrinter* printer,
                                       std::stop_token stop) {
  Progress progress(call.terminal, "reading the prompt", Progress::Unit::kItems);
  GenerateOptions options;
  options.sampling = request.sampling;
  options.max_tokens = request.max_tokens;
  options.stop_ids = engine.stop_ids();
  options.stop_ids.insert(options.stop_ids.end(), request.stop_ids.begin(), request.stop_ids.end());
  if (request.stable_tokens > 0) options.checkpoints = {request.stable_tokens};
  options.on_prompt = [&](int64_t done, int64_t total) {
    progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
  };
  options.on_token = [&](TokenId token) {
    progress.finish();
    if (printer != nullptr) printer->add(token);
    if (!call.output.is_usable()) call.interrupt.stop();
  };
  progress.update(0, request.prompt.size());
  Result<GenerateResult> result = session.generate(request.prompt, options, std::move(stop));
  progress.finish();
  if (printer != nullptr) printer->finish();
  return result;
}

}  // namespace penstock
