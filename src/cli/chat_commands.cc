#include <fmt/format.h>

#include "base/byte_text.h"
#include "cli/chat_state.h"
#include "cli/figures.h"
#include "cli/sampling_flags.h"

namespace penstock {
namespace {

constexpr uint64_t kFileBytesMax = 64 << 20;

struct Context {
  Call& call;
  Engine& engine;
  ChatState& state;
  std::string rest;  // of the line, after the command
};

using Handler = Result<ChatAction> (*)(Context&);

struct Command {
  std::string_view name;
  std::string_view arguments;
  std::string_view help;
  Handler handler;
};

Error wrong(const std::string& message) {
  return {ErrorCode::kInvalidArgument, message};
}

Result<ChatAction> leave(Context&) {
  return ChatAction::kLeave;
}

Result<ChatAction> clear(Context& context) {
  context.state.conversation.messages = Json::array();
  context.state.attached.clear();
  context.call.terminal.note("the conversation is forgotten");
  return ChatAction::kStay;
}

// Drops messages from the end through the last one of `role`; false when there is none.
bool drop_through_last(Json& messages, std::string_view role) {
  for (size_t i = messages.size(); i > 0; --i) {
    if (messages[i - 1].at("role") != role) continue;
    while (messages.size() >= i) messages.erase(messages.size() - 1);
    return true;
  }
  return false;
}

Result<ChatAction> regenerate(Context& context) {
  if (!drop_through_last(context.state.conversation.messages, "assistant")) {
    return wrong("there is no answer to make again");
  }
  return ChatAction::kAnswer;
}

Result<ChatAction> undo(Context& context) {
  if (!drop_through_last(context.state.conversation.messages, "user")) {
    return wrong("there is nothing to take back");
  }
  context.call.terminal.note("the last message and its answer are taken back");
  return ChatAction::kStay;
}

Result<ChatAction> set(Context& context) {
  const size_t space = context.rest.find(' ');
  if (space == std::string::npos) return wrong("write /set NAME VALUE, such as /set temp 0.7");
  const std::string name = context.rest.substr(0, space);
  const std::string value = context.rest.substr(context.rest.find_first_not_of(' ', space));
  if (name == "max-tokens") {
    PENSTOCK_TRY(check_value(*find_option(Verb::kChat, name), value));
    context.state.max_tokens = std::stoll(value);
    return ChatAction::kStay;
  }
  PENSTOCK_TRY(set_sampling(context.state.sampling, name, value));
  return ChatAction::kStay;
}

std::string thinking_text(const std::optional<bool>& thinking) {
  if (!thinking) return "auto";
  return *thinking ? "on" : "off";
}

Result<ChatAction> show(Context& context) {
  const ChatState& state = context.state;
  context.call.terminal.note(plan_line(context.engine));
  context.call.terminal.note(fmt::format("sampling: {}", to_text(sampling_json(state.sampling))));
  context.call.terminal.note(
      fmt::format("max-tokens {}, thinking {}, {} messages, context of {} tokens", state.max_tokens,
                  thinking_text(state.conversation.thinking), state.conversation.messages.size(),
                  context.engine.plan_request().context));
  if (!state.conversation.system.empty()) {
    context.call.terminal.note("system: " + printable(state.conversation.system));
  }
  return ChatAction::kStay;
}

Result<ChatAction> save(Context& context) {
  if (context.rest.empty()) return wrong("write /save FILE");
  const Json json{{"system", context.state.conversation.system},
                  {"messages", context.state.conversation.messages}};
  const std::string text = to_text(json, 1) + '\n';
  const auto file = PENSTOCK_TRY(context.call.storage.open(context.rest, OpenMode::kCreate));
  PENSTOCK_TRY(file->write(0, std::as_bytes(std::span(text))));
  PENSTOCK_TRY(file->sync());
  context.call.terminal.note("saved");
  return ChatAction::kStay;
}

Result<void> check_messages(const Json* messages, const std::string& path) {
  if (messages == nullptr || !messages->is_array()) return wrong(path + " has no list of messages");
  for (const Json& message : *messages) {
    PENSTOCK_TRY(json_string(message, "role", path));
    PENSTOCK_TRY(json_string(message, "content", path));
  }
  return {};
}

Result<ChatAction> load(Context& context) {
  if (context.rest.empty()) return wrong("write /load FILE");
  const std::string text =
      PENSTOCK_TRY(read_text(context.call.storage, context.rest, kFileBytesMax));
  const Json json = PENSTOCK_TRY(parse_json(text, context.rest));
  const Json* messages = json_find(json, "messages");
  PENSTOCK_TRY(check_messages(messages, context.rest));
  std::string system;
  if (json_find(json, "system") != nullptr) {
    system = PENSTOCK_TRY(json_string(json, "system", context.rest));
  }
  context.state.conversation.messages = *messages;
  context.state.conversation.system = system;
  context.call.terminal.note(fmt::format("{} messages", messages->size()));
  return ChatAction::kStay;
}

Result<ChatAction> read(Context& context) {
  if (context.rest.empty()) return wrong("write /read FILE");
  const std::string text =
      PENSTOCK_TRY(read_text(context.call.storage, context.rest, kFileBytesMax));
  context.state.attached += text;
  if (!text.ends_with('\n')) context.state.attached += '\n';
  context.call.terminal.note(
      fmt::format("{} goes in front of your next message", format_bytes(text.size())));
  return ChatAction::kStay;
}

Result<ChatAction> set_system(Context& context) {
  context.state.conversation.system = context.rest;
  context.call.terminal.note(context.rest.empty() ? "no system message" : "system message set");
  return ChatAction::kStay;
}

Result<ChatAction> think(Context& context) {
  context.state.conversation.thinking = true;
  context.call.terminal.note("reasons before answering, where the model's template can");
  return ChatAction::kStay;
}

Result<ChatAction> do_not_think(Context& context) {
  context.state.conversation.thinking = false;
  context.call.terminal.note("answers without reasoning, where the model's template can");
  return ChatAction::kStay;
}

Result<ChatAction> stats(Context& context) {
  if (!context.state.last) return wrong("there was no answer yet");
  const GenerationMetrics& metrics = *context.state.last;
  context.call.terminal.note(last_line(metrics));
  context.call.terminal.note(fmt::format("{} tokens of the prompt were cached, {} evaluated",
                                         metrics.cached_tokens, metrics.prompt.tokens));
  const PreloadReport& preloaded = context.engine.experts().preloaded();
  if (preloaded.wanted > 0) {
    context.call.terminal.note(
        fmt::format("warm start: {} of {} experts read", preloaded.experts, preloaded.wanted));
  }
  context.call.terminal.note(waits_text(metrics));
  return ChatAction::kStay;
}

Result<ChatAction> toggle_figures(Context& context) {
  context.state.shows_figures = !context.state.shows_figures;
  context.call.terminal.note(context.state.shows_figures ? "figures after each answer"
                                                         : "no figures after answers");
  return ChatAction::kStay;
}

Result<ChatAction> help(Context& context);

constexpr Command kCommands[] = {
    {"help", "", "this list", help},
    {"bye", "", "leave (also /exit and Ctrl-D)", leave},
    {"exit", "", "leave", leave},
    {"clear", "", "forget the conversation", clear},
    {"regen", "", "make the last answer again", regenerate},
    {"undo", "", "take back the last message and its answer", undo},
    {"set", "NAME VALUE", "sampling (temp, top-k, ...) or max-tokens", set},
    {"show", "", "model, settings, system message", show},
    {"save", "FILE", "write the conversation", save},
    {"load", "FILE", "go on with a saved conversation", load},
    {"read", "FILE", "put a file in front of the next message", read},
    {"system", "TEXT", "set the system message; without TEXT: none", set_system},
    {"think", "", "reason before answering", think},
    {"nothink", "", "answer without reasoning", do_not_think},
    {"stats", "", "figures of the last answer", stats},
    {"verbose", "", "figures after each answer, on or off", toggle_figures},
};

Result<ChatAction> help(Context& context) {
  for (const Command& command : kCommands) {
    const std::string usage = fmt::format("/{} {}", command.name, command.arguments);
    context.call.terminal.note(fmt::format("  {:<18} {}", usage, command.help));
  }
  context.call.terminal.note("  \"\"\"                begins and ends a message of several lines");
  context.call.terminal.note("  Ctrl-C             stops an answer; twice at the prompt leaves");
  return ChatAction::kStay;
}

}  // namespace

Result<ChatAction> run_chat_command(Call& call, Engine& engine, ChatState& state,
                                    const std::string& line) {
  const size_t space = std::min(line.find(' '), line.size());
  const std::string_view name = std::string_view(line).substr(1, space - 1);
  const size_t begin = line.find_first_not_of(' ', space);
  std::string rest = begin == std::string::npos ? "" : line.substr(begin);
  rest.resize(rest.find_last_not_of(" \t") + 1);
  Context context{call, engine, state, std::move(rest)};
  for (const Command& command : kCommands) {
    if (command.name == name) return command.handler(context);
  }
  return wrong(fmt::format("there is no command /{}; /help lists them", printable(name)));
}

}  // namespace penstock
