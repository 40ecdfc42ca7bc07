// chat: a conversation at the keyboard, or line by line from a pipe.
//
// Every turn hands the whole conversation to one session, which finds what it already holds. The
// session keeps checkpoints of the states before each answer, because a template may render a
// finished turn differently (Qwen3.5 drops past reasoning): then only that answer is read again.

#include <fmt/format.h>

#include "cli/chat_state.h"
#include "cli/conversation_flags.h"
#include "cli/figures.h"
#include "cli/generation.h"
#include "cli/line_reader.h"
#include "cli/loading.h"
#include "cli/sampling_flags.h"
#include "cli/warm_start_teller.h"
#include "dialogue/text_limit.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr char kQuotes[] = "\"\"\"";
constexpr std::chrono::milliseconds kIdleStep(250);

class Chat {
 public:
  Chat(Call& call, Engine& engine, Session session, LineReader& lines, TraceFile& trace,
       WarmStartTeller& warm)
      : call_(call),
        engine_(engine),
        session_(std::move(session)),
        lines_(lines),
        trace_(trace),
        warm_(warm) {
    lines.set_idle_work([this] { return work_while_idle(); });
  }

  ChatState& state() { return state_; }

  Result<int> run();

 private:
  Line read_message();
  std::chrono::milliseconds work_while_idle();
  void tell_shrinks();
  Result<void> handle(const std::string& message, bool& leaves);
  Result<void> answer();
  void print_json(const GenerateResult& result, const Reply& reply);

  Call& call_;
  Engine& engine_;
  Session session_;
  LineReader& lines_;
  TraceFile& trace_;
  WarmStartTeller& warm_;
  ChatState state_;
  uint64_t shrinks_told_ = 0;
};

// Nobody waits: time for the experts of a warm start, and to see whether others need memory.
std::chrono::milliseconds Chat::work_while_idle() {
  engine_.watch_memory();
  if (warm_.read_more()) return std::chrono::milliseconds(0);
  return engine_.watches_memory() ? kIdleStep : std::chrono::milliseconds(-1);
}

void Chat::tell_shrinks() {
  const uint64_t shrinks = engine_.experts().stats().shrinks;
  if (shrinks > shrinks_told_) call_.terminal.note(shrink_text(engine_));
  shrinks_told_ = shrinks;
}

Line Chat::read_message() {
  Line line = lines_.read(">>> ");
  if (line.status != Line::Status::kLine || !line.text.starts_with(kQuotes)) return line;
  std::string text = line.text.substr(3);
  while (!text.ends_with(kQuotes)) {
    line = lines_.read("... ");
    if (line.status != Line::Status::kLine) return line;
    text += '\n' + line.text;
  }
  text.resize(text.size() - 3);
  return {Line::Status::kLine, std::move(text)};
}

Result<int> Chat::run() {
  const bool interactive = call_.terminal.input_is_interactive();
  bool interrupted_before = false;
  for (;;) {
    call_.interrupt.begin();
    // A SIGTERM before begin() was forgotten by it; one from now on ends the reading.
    if (call_.interrupt.was_terminated()) return kExitInterrupted;
    const Line typed = read_message();
    if (call_.interrupt.was_terminated()) return kExitInterrupted;
    if (typed.status == Line::Status::kEnd) return kExitDone;
    if (typed.status == Line::Status::kTooLong) return text_too_long(engine_);
    if (typed.status == Line::Status::kInterrupted) {
      if (interrupted_before || !interactive) return kExitInterrupted;
      interrupted_before = true;
      call_.terminal.note("Ctrl-C again or Ctrl-D leaves");
      continue;
    }
    interrupted_before = false;
    if (typed.text.find_first_not_of(" \t\n") == std::string::npos) continue;
    lines_.remember(typed.text);
    bool leaves = false;
    const Result<void> handled = handle(typed.text, leaves);
    // A person sees what went wrong and goes on; a script is not to miss it.
    if (!handled && !interactive) return handled.error();
    if (!handled) call_.terminal.error(handled.error().message);
    if (leaves || !call_.output.is_usable()) return kExitDone;
  }
}

Result<void> Chat::handle(const std::string& message, bool& leaves) {
  const Json before = state_.conversation.messages;
  Result<void> handled;
  if (is_chat_command(message)) {
    const ChatAction action = PENSTOCK_TRY(run_chat_command(call_, engine_, state_, message));
    leaves = action == ChatAction::kLeave;
    if (action == ChatAction::kAnswer) handled = answer();
  } else {
    state_.conversation.messages.push_back(
        Json{{"role", "user"},
             {"content", replace_invalid_utf8(state_.attached + message_of(message))}});
    handled = answer();
    if (handled) state_.attached.clear();
  }
  if (!handled) state_.conversation.messages = before;
  return handled;
}

void Chat::print_json(const GenerateResult& result, const Reply& reply) {
  Json json{{"content", reply.content}, {"reasoning", reply.reasoning}};
  json.update(result_json(engine_, result));
  call_.output.write_line(json);
}

// Answers the last message.
Result<void> Chat::answer() {
  const ChatPrompt prompt = PENSTOCK_TRY(make_chat_prompt(engine_.texts(), state_.conversation));
  SamplingOptions sampling = state_.sampling;
  sampling.seed += state_.num_answers++;
  ReplyPrinter printer(*engine_.tokenizer(), call_.terminal, call_.json() ? nullptr : &call_.output,
                       prompt.opens_reasoning);
  trace_.begin_sequence();
  const GenerateResult result = PENSTOCK_TRY(generate_answer(
      call_, engine_, session_,
      {prompt.tokens, sampling, state_.max_tokens, prompt.stable_tokens, prompt.stop_ids}, &printer,
      call_.interrupt.token()));
  const Reply reply = split_reply(printer.text(), prompt.opens_reasoning);
  if (call_.json()) print_json(result, reply);
  state_.last = result.metrics;
  if (result.finish == FinishReason::kCancelled) call_.terminal.note("(stopped)");
  if (result.finish == FinishReason::kLength) {
    call_.terminal.note("(cut short: --max-tokens or the context was reached)");
  }
  if (result.tokens.empty() && result.finish == FinishReason::kCancelled) {
    return Error{ErrorCode::kCancelled, "no answer; the message is taken back"};
  }
  state_.conversation.messages.push_back(reply_message(reply));
  if (state_.shows_figures) call_.terminal.note(last_line(result.metrics));
  warm_.tell_failures();
  tell_shrinks();
  return {};
}

Result<std::optional<std::string>> history_path(const Call& call) {
  if (call.settings.is_on("no-history") || !call.terminal.input_is_interactive()) {
    return std::optional<std::string>();
  }
  const std::optional<std::string> directory = call.environment.state_directory();
  if (!directory) return directory;
  const Result<void> made = call.storage.make_directory(*directory);
  if (made) return std::optional<std::string>(*directory + "/history");
  call.terminal.warning("no history: " + made.error().message);
  return std::optional<std::string>();
}

}  // namespace

Result<int> chat_verb(Call& call) {
  EngineOptions options = PENSTOCK_TRY(engine_options(call.settings));
  options.prefix_store = PENSTOCK_TRY(prefix_store_options(call));
  Conversation conversation = PENSTOCK_TRY(conversation_of(call.storage, call.settings));
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  const SamplingChoice sampling =
      PENSTOCK_TRY(choose_sampling(call.settings, engine->sampling_defaults()));
  PENSTOCK_TRY(check_can_chat(engine->texts()));
  call.terminal.note("sampling: " + sampling.text);
  tell_endless_answers(call, *engine, true);
  if (call.terminal.input_is_interactive()) call.terminal.note("/help lists the commands");

  call.interrupt.set_policy(Interrupt::Policy::kPatient);
  Session session = PENSTOCK_TRY(engine->new_session());
  TraceFile trace(call, *engine);
  const auto lines = make_line_reader(call.terminal, call.interrupt,
                                      PENSTOCK_TRY(history_path(call)), text_bytes_max(*engine));
  WarmStartTeller warm(call, *engine);
  if (warm.is_eager()) {
    warm.read_all(call.interrupt.token());
  } else if (warm.num_wanted() > 0) {
    call.terminal.detail(
        fmt::format("warm start: {} experts are read while you type", warm.num_wanted()));
  }
  Chat chat(call, *engine, std::move(session), *lines, trace, warm);
  chat.state().conversation = std::move(conversation);
  chat.state().sampling = sampling.options;
  chat.state().max_tokens = call.settings.integer("max-tokens");
  chat.state().shows_figures = call.terminal.is_verbose();
  const Result<int> code = chat.run();
  warm.save();
  PENSTOCK_TRY(code);
  PENSTOCK_TRY(trace.write());
  return code;
}

}  // namespace penstock
