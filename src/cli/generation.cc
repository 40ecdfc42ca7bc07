#include "cli/generation.h"

#include <stop_token>

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
                                       const AnswerRequest& request, ReplySink* sink,
                                       const std::stop_token& stop) {
  Progress progress(call.terminal, "reading the prompt", Progress::Unit::kItems);
  // Stopped by whoever stops the program, and by a stop string.
  std::stop_source enough;
  const std::stop_callback passes_on(stop, [&enough] { enough.request_stop(); });
  GenerateOptions options;
  options.sampling = request.sampling;
  options.max_tokens = request.max_tokens;
  options.mask = request.mask;
  options.stop_ids = engine.stop_ids();
  options.stop_ids.insert(options.stop_ids.end(), request.stop_ids.begin(), request.stop_ids.end());
  if (request.stable_tokens > 0) options.checkpoints = {request.stable_tokens};
  options.on_prompt = [&](int64_t done, int64_t total) {
    progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
  };
  options.on_token = [&](TokenId token) {
    progress.finish();
    if (sink != nullptr) sink->add(token);
    if (sink != nullptr && sink->is_stopped()) enough.request_stop();
    if (!call.output.is_usable()) call.interrupt.stop();
  };
  progress.update(0, request.prompt.size());
  Result<GenerateResult> result = session.generate(request.prompt, options, enough.get_token());
  progress.finish();
  if (sink != nullptr) sink->finish();
  const bool met_stop = sink != nullptr && sink->is_stopped() && !stop.stop_requested();
  if (result && met_stop) result->finish = FinishReason::kStop;
  return result;
}

Result<std::vector<std::string>> stop_strings_of(const Settings& settings) {
  const Setting& given = settings.get("stop");
  std::vector<std::string> stops;
  if (given.text.starts_with('[')) {
    const Json list = PENSTOCK_TRY(parse_json(given.text, given.place));
    for (const Json& text : list) {
      if (!text.is_string()) {
        return Error{ErrorCode::kInvalidArgument, given.place + ": a JSON list of texts is wanted"};
      }
      stops.push_back(text.get<std::string>());
    }
  } else if (!given.text.empty()) {
    stops.push_back(given.text);
  }
  const Result<void> checked = StopStrings::check(stops);
  if (!checked) return checked.error().with_context(given.place);
  return stops;
}

}  // namespace penstock
