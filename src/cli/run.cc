// run: one prompt, one answer.

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include "cli/conversation_flags.h"
#include "cli/drive_report.h"
#include "cli/figures.h"
#include "cli/generation.h"
#include "cli/loading.h"
#include "cli/sampling_flags.h"
#include "cli/token_file.h"
#include "cli/warm_start_teller.h"
#include "dialogue/text_limit.h"
#include "io/system_error.h"
#include "text/utf8.h"

namespace penstock {
namespace {

// Without the byte order mark with which some editors begin a file.
std::string without_mark(std::string text) {
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  return text.starts_with(kMark) ? text.substr(kMark.size()) : text;
}

// No more of it than can fit. It is waited for with an eye on the interrupt.
Result<std::string> read_standard_input(const Call& call, const Engine& engine) {
  const uint64_t bytes_max = text_bytes_max(engine);
  std::string text;
  char buffer[64 << 10];
  for (;;) {
    pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {call.interrupt.descriptor(), POLLIN, 0}};
    if (::poll(watched, 2, -1) < 0 && errno == EINTR) continue;
    if ((watched[1].revents & POLLIN) != 0) return Error{ErrorCode::kCancelled, "interrupted"};
    const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return system_error("reading", "standard input", errno);
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > bytes_max) return text_too_long(engine);
  }
}

// Flags that would be ignored in silence.
Result<void> check_flags(const Settings& settings) {
  const int sources = static_cast<int>(settings.is_given("prompt")) +
                      static_cast<int>(settings.is_given("file")) +
                      static_cast<int>(settings.is_given("ids"));
  if (sources > 1) {
    return Error{ErrorCode::kInvalidArgument, "give one of --prompt, --file and --ids"};
  }
  if (settings.is_on("chat") && settings.is_given("ids")) {
    return Error{ErrorCode::kInvalidArgument, "--ids are raw tokens and no message for --chat"};
  }
  if (settings.is_on("chat")) return {};
  for (const char* name : {"system", "tools", "think", "parse-special"}) {
    if (settings.get(name).origin == Origin::kFlag) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--{} means something only with --chat", name)};
    }
  }
  return {};
}

bool reads_file(const Settings& settings) {
  return settings.is_given("file") && settings.text("file") != "-";
}

// What can be known before the model is loaded; the text itself is read when it is known how much of
// it can fit.
Result<void> check_prompt_source(const Call& call) {
  const Settings& settings = call.settings;
  if (settings.is_given("prompt")) return {};
  if (settings.is_given("ids")) {
    const Result<FileStat> file = call.storage.stat(settings.text("ids"));
    if (file) return {};
    return Error{ErrorCode::kInvalidArgument, "--ids: " + file.error().message};
  }
  if (reads_file(settings)) {
    const auto file = call.storage.open(settings.text("file"), OpenMode::kRead);
    if (file || file.error().code != ErrorCode::kNotFound) {
      return file ? Result<void>() : file.error();
    }
    return Error{ErrorCode::kInvalidArgument, "--file: " + file.error().message};
  }
  if (!settings.is_given("file") && ::isatty(STDIN_FILENO) == 1) {
    return Error{ErrorCode::kInvalidArgument,
                 "a prompt is missing; give --prompt TEXT, --file FILE or pipe one in, or use "
                 "`penstock chat`"};
  }
  return {};
}

Result<std::string> prompt_text(const Call& call, const Engine& engine) {
  const Settings& settings = call.settings;
  if (settings.is_given("prompt")) return settings.text("prompt");
  if (!reads_file(settings)) return without_mark(PENSTOCK_TRY(read_standard_input(call, engine)));
  const std::string& path = settings.text("file");
  const uint64_t bytes_max = text_bytes_max(engine);
  if (PENSTOCK_TRY(call.storage.stat(path)).bytes > bytes_max) {
    return text_too_long(engine).with_context(path);
  }
  return without_mark(PENSTOCK_TRY(read_text(call.storage, path, bytes_max)));
}

Result<ChatPrompt> make_prompt(const Call& call, const Engine& engine, const std::string& text) {
  const Settings& settings = call.settings;
  if (settings.is_on("chat")) {
    Conversation conversation = PENSTOCK_TRY(conversation_of(call.storage, settings));
    conversation.messages.push_back(
        Json{{"role", "user"}, {"content", replace_invalid_utf8(text)}});
    return make_chat_prompt(engine.texts(), conversation);
  }
  ChatPrompt prompt;
  if (settings.is_given("ids")) {
    prompt.tokens = PENSTOCK_TRY(
        read_token_file(call.storage, settings.text("ids"), engine.plan_request().context));
  } else {
    prompt.tokens = PENSTOCK_TRY(tokenizer_of(engine.texts()))->encode(text);
  }
  return prompt;
}

void print_json(Call& call, Engine& engine, const GenerateResult& result, const std::string& text,
                const SamplingChoice& sampling, bool opens_reasoning) {
  Json json{{"text", text}};
  if (call.settings.is_on("chat")) {
    const Reply reply = split_reply(text, opens_reasoning);
    json["reasoning"] = reply.reasoning;
    json["content"] = reply.content;
  }
  json.update(result_json(engine, result));
  json["sampling"] = sampling_json(sampling.options);
  call.output.write_line(json);
}

}  // namespace

Result<int> run_verb(Call& call) {
  PENSTOCK_TRY(check_flags(call.settings));
  PENSTOCK_TRY(check_prompt_source(call));
  const std::vector<std::string> stops = PENSTOCK_TRY(stop_strings_of(call.settings));
  const EngineOptions options = PENSTOCK_TRY(engine_options(call));
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  const bool has_ids = call.settings.is_given("ids");
  const std::string text = has_ids ? "" : PENSTOCK_TRY(prompt_text(call, *engine));
  const ChatPrompt prompt = PENSTOCK_TRY(make_prompt(call, *engine, text));
  const SamplingChoice sampling =
      PENSTOCK_TRY(choose_sampling(call.settings, engine->sampling_defaults()));
  call.terminal.note("sampling: " + sampling.text);
  tell_endless_answers(call, *engine, call.settings.is_on("chat"));

  Session session = PENSTOCK_TRY(engine->new_session());
  TraceFile trace(call, *engine);
  trace.begin_sequence();
  WarmStartTeller warm(call, *engine);
  if (warm.is_eager()) warm.read_all(call.interrupt.token());
  std::optional<ReplyPrinter> printer;
  if (engine->tokenizer() != nullptr) {
    printer.emplace(*engine->tokenizer(), call.terminal, call.json() ? nullptr : &call.output,
                    prompt.opens_reasoning, stops);
  }
  const GenerateResult result = PENSTOCK_TRY(generate_answer(
      call, *engine, session,
      {prompt.tokens, sampling.options, call.settings.integer("max-tokens"), 0, prompt.stop_ids},
      printer ? &*printer : nullptr, call.interrupt.token()));
  if (call.json()) {
    print_json(call, *engine, result, printer ? printer->text() : "", sampling,
               prompt.opens_reasoning);
  }
  call.terminal.note(last_line(result.metrics));
  tell_drives(call, engine->experts().drives());
  tell_news(call, *engine);
  if (engine->parts().stats().shrinks > 0) call.terminal.note(shrink_text(*engine));
  call.terminal.detail(waits_text(result.metrics));
  warm.save();
  PENSTOCK_TRY(trace.write());
  return result.finish == FinishReason::kCancelled ? kExitInterrupted : kExitDone;
}

}  // namespace penstock
