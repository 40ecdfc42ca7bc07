// A chat with a model that is loaded here.
//
// Every turn hands the whole conversation to one session, which finds what it already holds. The
// session keeps checkpoints of the states before each answer, because a template may render a
// finished turn differently (Qwen3.5 drops past reasoning): then only that answer is read again.

#include <fmt/format.h>

#include "cli/chat_partner.h"
#include "cli/drive_report.h"
#include "cli/figures.h"
#include "cli/generation.h"
#include "cli/loading.h"
#include "cli/parsed_reply.h"
#include "cli/sampling_flags.h"
#include "cli/warm_start_teller.h"
#include "dialogue/constraints.h"
#include "dialogue/text_limit.h"

namespace penstock {
namespace {

constexpr std::chrono::milliseconds kIdleStep(250);

class LocalPartner final : public ChatPartner {
 public:
  LocalPartner(Call& call, std::unique_ptr<Engine> engine, Session session)
      : call_(call),
        engine_(std::move(engine)),
        session_(std::move(session)),
        trace_(call, *engine_),
        warm_(call, *engine_) {
    if (warm_.is_eager()) {
      warm_.read_all(call.interrupt.token());
    } else if (warm_.num_wanted() > 0) {
      call.terminal.detail(
          fmt::format("warm start: {} experts are read while you type", warm_.num_wanted()));
    }
  }

  Result<PartnerAnswer> answer(const ChatState& state) override;
  std::string description() override { return plan_line(*engine_); }
  std::string limits() override {
    return fmt::format("context of {} tokens", engine_->plan_request().context);
  }
  std::string last_figures() override { return last_ ? last_line(*last_) : std::string(); }
  std::string figures() override;
  uint64_t text_bytes_max() override { return penstock::text_bytes_max(*engine_); }
  Error text_too_long() override { return penstock::text_too_long(*engine_); }
  std::chrono::milliseconds work_while_idle() override;
  void tell_news() override;
  Result<void> end() override;
  Result<void> check_tools(const Json& tools) override;

 private:
  Result<PartnerAnswer> answer_as_text(const ChatState& state, const ChatPrompt& prompt,
                                       const AnswerRequest& request);
  Result<PartnerAnswer> answer_with_calls(const ChatState& state, const ChatPrompt& prompt,
                                          AnswerRequest request);
  Result<GenerateResult> generate(const AnswerRequest& request, ReplySink& sink);
  void print_json(const GenerateResult& result, const Json& message);
  Output* output() { return call_.json() ? nullptr : &call_.output; }
  Constraints& constraints();

  Call& call_;
  std::unique_ptr<Engine> engine_;
  Session session_;
  TraceFile trace_;
  WarmStartTeller warm_;
  std::unique_ptr<Constraints> constraints_;  // made when tools are first offered
  std::optional<GenerationMetrics> last_;
  uint64_t shrinks_told_ = 0;
  uint64_t drive_failures_told_ = 0;
  uint64_t num_calls_ = 0;
};

Constraints& LocalPartner::constraints() {
  if (constraints_ == nullptr) {
    constraints_ = std::make_unique<Constraints>(engine_->texts(), engine_->stop_ids());
  }
  return *constraints_;
}

// Nobody waits: time for the experts of a warm start, and to see whether others need memory.
std::chrono::milliseconds LocalPartner::work_while_idle() {
  engine_->watch_memory();
  if (warm_.read_more()) return std::chrono::milliseconds(0);
  return engine_->watches_memory() ? kIdleStep : std::chrono::milliseconds(-1);
}

void LocalPartner::tell_news() {
  warm_.tell_failures();
  penstock::tell_news(call_, *engine_);
  const std::vector<DriveReport> drives = engine_->experts().drives();
  uint64_t failures = 0;
  for (const DriveReport& drive : drives) failures += drive.stats.failures;
  if (failures > drive_failures_told_) {
    tell_drives(call_, drives);
  }
  drive_failures_told_ = failures;
  const uint64_t shrinks = engine_->parts().stats().shrinks;
  if (shrinks > shrinks_told_) call_.terminal.note(shrink_text(*engine_));
  shrinks_told_ = shrinks;
}

std::string LocalPartner::figures() {
  if (!last_) return "";
  std::string text = fmt::format("{}\n{} tokens of the prompt were cached, {} evaluated\n",
                                 last_line(*last_), last_->cached_tokens, last_->prompt.tokens);
  const PreloadReport& preloaded = engine_->experts().preloaded();
  if (preloaded.wanted > 0) {
    text += fmt::format("warm start: {} of {} experts read\n", preloaded.experts, preloaded.wanted);
  }
  return text + waits_text(*last_);
}

// A template that knows no tools leaves them out without a word.
Result<void> LocalPartner::check_tools(const Json& tools) {
  Conversation example;
  example.messages = Json::array({Json{{"role", "user"}, {"content", "x"}}});
  const ChatPrompt without = PENSTOCK_TRY(make_chat_prompt(engine_->texts(), example));
  example.tools = tools;
  const ChatPrompt with = PENSTOCK_TRY(make_chat_prompt(engine_->texts(), example));
  if (with.text != without.text) return {};
  return Error{ErrorCode::kUnsupported,
               "the model's chat template knows no tools, so none can be offered"};
}

Result<GenerateResult> LocalPartner::generate(const AnswerRequest& request, ReplySink& sink) {
  trace_.begin_sequence();
  GenerateResult result = PENSTOCK_TRY(
      generate_answer(call_, *engine_, session_, request, &sink, call_.interrupt.token()));
  last_ = result.metrics;
  return result;
}

void LocalPartner::print_json(const GenerateResult& result, const Json& message) {
  const Json* reasoning = json_find(message, "reasoning_content");
  Json json{{"content", message.at("content")},
            {"reasoning", reasoning == nullptr ? Json("") : *reasoning}};
  if (const Json* calls = json_find(message, "tool_calls")) json["tool_calls"] = *calls;
  json.update(result_json(*engine_, result));
  call_.output.write_line(json);
}

Result<PartnerAnswer> LocalPartner::answer(const ChatState& state) {
  Conversation conversation = state.conversation;
  conversation.tools = state.offered_tools();
  const ChatPrompt prompt = PENSTOCK_TRY(make_chat_prompt(engine_->texts(), conversation));
  SamplingOptions sampling = state.sampling;
  sampling.seed += state.num_answers;
  const AnswerRequest request{prompt.tokens, sampling, state.max_tokens, prompt.stable_tokens,
                              prompt.stop_ids};
  // Tools of others are offered to see what the model makes of them: its text, as it is.
  if (state.allowed.is_empty()) return answer_as_text(state, prompt, request);
  return answer_with_calls(state, prompt, request);
}

Result<PartnerAnswer> LocalPartner::answer_as_text(const ChatState& state, const ChatPrompt& prompt,
                                                   const AnswerRequest& request) {
  ReplyPrinter printer(*engine_->tokenizer(), call_.terminal, output(), prompt.opens_reasoning,
                       state.stops);
  const GenerateResult result = PENSTOCK_TRY(generate(request, printer));
  const Reply reply = split_reply(printer.text(), prompt.opens_reasoning);
  PartnerAnswer answer{reply_message(reply), result.finish};
  if (call_.json()) print_json(result, answer.message);
  return answer;
}

Result<PartnerAnswer> LocalPartner::answer_with_calls(const ChatState& state,
                                                      const ChatPrompt& prompt,
                                                      AnswerRequest request) {
  const Json tools = state.offered_tools();
  const ToolTypes types = PENSTOCK_TRY(ToolTypes::create(tools));
  const Constraints::Made made =
      PENSTOCK_TRY(constraints().of_tools(tools, {}, prompt.opens_reasoning));
  const std::unique_ptr<TokenMask> mask = made.make();
  request.mask = mask.get();
  AnswerFormat format;
  format.form = constraints().form();
  format.opens_reasoning = prompt.opens_reasoning;
  format.stops = state.stops;
  ParsedReply reply(*engine_->tokenizer(), format, types, call_.terminal, output());
  const GenerateResult result = PENSTOCK_TRY(generate(request, reply));
  reply.end(result.finish != FinishReason::kStop);
  Json calls = Json::array();
  for (const ParsedReply::ParsedCall& call : reply.calls()) {
    calls.push_back(call_json(fmt::format("call_{}", ++num_calls_), call.name, call.arguments));
  }
  PartnerAnswer answer{answer_message(reply.content(), reply.reasoning(), calls), result.finish};
  if (call_.json()) print_json(result, answer.message);
  return answer;
}

Result<void> LocalPartner::end() {
  warm_.save();
  return trace_.write();
}

}  // namespace

Result<std::unique_ptr<ChatPartner>> open_local_partner(Call& call, ChatState& state) {
  EngineOptions options = PENSTOCK_TRY(engine_options(call));
  options.prefix_store = PENSTOCK_TRY(prefix_store_options(call));
  std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  const SamplingChoice sampling =
      PENSTOCK_TRY(choose_sampling(call.settings, engine->sampling_defaults()));
  PENSTOCK_TRY(check_can_chat(engine->texts()));
  state.sampling = sampling.options;
  call.terminal.note("sampling: " + sampling.text);
  tell_endless_answers(call, *engine, true);
  Session session = PENSTOCK_TRY(engine->new_session());
  return std::unique_ptr<ChatPartner>(
      new LocalPartner(call, std::move(engine), std::move(session)));
}

}  // namespace penstock
