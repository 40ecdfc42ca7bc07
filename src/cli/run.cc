// run: one prompt, one answer.

#include <fmt/format.h>
#include <unistd.h>

#include "cli/conversation_flags.h"
#include "cli/figures.h"
#include "cli/generation.h"
#include "cli/loading.h"
#include "cli/sampling_flags.h"
#include "cli/token_file.h"
#include "cli/warm_start_teller.h"
#include "io/system_error.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr uint64_t kPromptBytesMax = 256 << 20;

Result<std::string> read_standard_input() {
  std::string text;
  char buffer[64 << 10];
  for (;;) {
    const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error("reading", "standard input", errno);
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kPromptBytesMax) {
      return Error{ErrorCode::kInvalidArgument, "standard input: the prompt is beyond 256 MiB"};
    }
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

Result<std::string> prompt_text(const Call& call) {
  const Settings& settings = call.settings;
  if (settings.is_given("prompt")) return settings.text("prompt");
  if (settings.is_given("file") && settings.text("file") != "-") {
    Result<std::string> text = read_text(call.storage, settings.text("file"), kPromptBytesMax);
    if (text || text.error().code != ErrorCode::kNotFound) return text;
    return Error{ErrorCode::kInvalidArgument, "--file: " + text.error().message};
  }
  if (!settings.is_given("file") && ::isatty(STDIN_FILENO) == 1) {
    return Error{ErrorCode::kInvalidArgument,
                 "a prompt is missing; give --prompt TEXT, --file FILE or pipe one in, or use "
                 "`penstock chat`"};
  }
  return read_standard_input();
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
    prompt.tokens = PENSTOCK_TRY(read_token_file(call.storage, settings.text("ids")));
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
  const bool has_ids = call.settings.is_given("ids");
  const std::string text = has_ids ? "" : PENSTOCK_TRY(prompt_text(call));
  const EngineOptions options = PENSTOCK_TRY(engine_options(call.settings));
  const std::unique_ptr<Engine> engine = PENSTOCK_TRY(load_engine(call, options));
  const ChatPrompt prompt = PENSTOCK_TRY(make_prompt(call, *engine, text));
  const SamplingChoice sampling =
      PENSTOCK_TRY(choose_sampling(call.settings, engine->sampling_defaults()));
  call.terminal.note("sampling: " + sampling.text);

  Session session = PENSTOCK_TRY(engine->new_session());
  TraceFile trace(call, *engine);
  trace.begin_sequence();
  WarmStartTeller warm(call, *engine);
  if (warm.is_eager()) warm.read_all(call.interrupt.token());
  std::optional<ReplyPrinter> printer;
  if (engine->tokenizer() != nullptr) {
    printer.emplace(*engine->tokenizer(), call.terminal, call.json() ? nullptr : &call.output,
                    prompt.opens_reasoning);
  }
  const GenerateResult result = PENSTOCK_TRY(
      generate_answer(call, *engine, session,
                      {prompt.tokens, sampling.options, call.settings.integer("max-tokens"), 0},
                      printer ? &*printer : nullptr, call.interrupt.token()));
  if (call.json()) {
    print_json(call, *engine, result, printer ? printer->text() : "", sampling,
               prompt.opens_reasoning);
  }
  call.terminal.note(last_line(result.metrics));
  if (engine->experts().stats().shrinks > 0) call.terminal.note(shrink_text(*engine));
  call.terminal.detail(waits_text(result.metrics));
  warm.save();
  PENSTOCK_TRY(trace.write());
  return result.finish == FinishReason::kCancelled ? kExitInterrupted : kExitDone;
}

}  // namespace penstock
