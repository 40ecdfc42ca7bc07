#include <fmt/format.h>

#include "base/byte_text.h"
#include "cli/chat_partner.h"
#include "cli/chat_tools.h"
#include "cli/sampling_flags.h"
#include "cli/suggest.h"
#include "dialogue/conversation_file.h"
#include "io/output_file.h"

namespace penstock {
namespace {

constexpr uint64_t kFileBytesMax = 64 << 20;
constexpr size_t kCommandShown = 40;

struct Context {
  Call& call;
  ChatPartner& partner;
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

// What a command answers is what was asked for: also with --quiet.
void say(const Context& context, const std::string& text) {
  context.call.terminal.show(text.ends_with('\n') ? text : text + '\n');
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
    return invalid_argument("there is no answer to make again");
  }
  return ChatAction::kAnswer;
}

Result<ChatAction> undo(Context& context) {
  if (!drop_through_last(context.state.conversation.messages, "user")) {
    return invalid_argument("there is nothing to take back");
  }
  context.call.terminal.note("the last message and its answer are taken back");
  return ChatAction::kStay;
}

Result<ChatAction> set(Context& context) {
  const size_t space = context.rest.find(' ');
  if (space == std::string::npos)
    return invalid_argument("write /set NAME VALUE, such as /set temp 0.7");
  const std::string name = context.rest.substr(0, space);
  const std::string value = context.rest.substr(context.rest.find_first_not_of(' ', space));
  if (name == "max-tokens") {
    PENSTOCK_TRY(check_value(*find_option(Verb::kChat, name), value));
    context.state.max_tokens = std::stoll(value);
    return ChatAction::kStay;
  }
  PENSTOCK_TRY(set_sampling(context.state.sampling, name, value));
  context.state.sampling_given.insert(name);
  return ChatAction::kStay;
}

std::string thinking_text(const std::optional<bool>& thinking) {
  if (!thinking) return "auto";
  return *thinking ? "on" : "off";
}

Result<ChatAction> show(Context& context) {
  const ChatState& state = context.state;
  say(context, context.partner.description());
  say(context, fmt::format("sampling: {}", to_text(sampling_json(state.sampling))));
  say(context, fmt::format("max-tokens {}, thinking {}, {} messages, {}", state.max_tokens,
                           thinking_text(state.conversation.thinking),
                           state.conversation.messages.size(), context.partner.limits()));
  say(context, "tools: " + text_of(state.allowed));
  if (!state.conversation.system.empty()) {
    say(context, "system: " + printable(state.conversation.system));
  }
  return ChatAction::kStay;
}

Result<ChatAction> save(Context& context) {
  if (context.rest.empty()) return invalid_argument("write /save FILE");
  const Conversation& conversation = context.state.conversation;
  const Json json = to_json({conversation.system, conversation.messages, conversation.tools});
  const std::string text = to_text(json, 1) + '\n';
  PENSTOCK_TRY(write_output(context.call.storage, context.rest, std::as_bytes(std::span(text))));
  context.call.terminal.note("saved");
  return ChatAction::kStay;
}

Result<ChatAction> load(Context& context) {
  if (context.rest.empty()) return invalid_argument("write /load FILE");
  const std::string text =
      PENSTOCK_TRY(read_text(context.call.storage, context.rest, kFileBytesMax));
  const Json json = PENSTOCK_TRY(parse_json(text, context.rest));
  SavedConversation loaded = PENSTOCK_TRY(read_conversation(json, context.rest));
  Conversation& conversation = context.state.conversation;
  if (!loaded.tools.is_null()) conversation.tools = std::move(loaded.tools);
  conversation.messages = std::move(loaded.messages);
  conversation.system = std::move(loaded.system);
  context.call.terminal.note(fmt::format("{} messages", conversation.messages.size()));
  return ChatAction::kStay;
}

Result<ChatAction> read(Context& context) {
  if (context.rest.empty()) return invalid_argument("write /read FILE");
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
  const std::string figures = context.partner.figures();
  if (figures.empty()) return invalid_argument("there was no answer yet");
  say(context, table_text(figures));
  return ChatAction::kStay;
}

Result<ChatAction> allow(Context& context) {
  ChatState& state = context.state;
  if (!context.rest.empty()) {
    const ToolSet tools = PENSTOCK_TRY(parse_tool_set(context.rest));
    PENSTOCK_TRY(ChatTools::check(context.call, tools));
    if (!tools.is_empty()) PENSTOCK_TRY(context.partner.check_tools(tool_definitions(tools)));
    state.allowed = tools;
  }
  say(context, "tools: " + text_of(state.allowed));
  return ChatAction::kStay;
}

Result<ChatAction> toggle_figures(Context& context) {
  context.state.shows_figures = !context.state.shows_figures;
  say(context,
      context.state.shows_figures ? "figures after each answer" : "no figures after answers");
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
    {"allow", "read,list,run", "tools that the model may use; none: none", allow},
    {"stats", "", "figures of the last answer", stats},
    {"verbose", "", "figures after each answer, on or off", toggle_figures},
};

Result<ChatAction> help(Context& context) {
  for (const Command& command : kCommands) {
    const std::string usage = fmt::format("/{} {}", command.name, command.arguments);
    say(context, fmt::format("  {:<20} {}", usage, command.help));
  }
  say(context, "  //TEXT               a message that begins with a slash");
  say(context, "  \"\"\"                  begins and ends a message of several lines");
  say(context, "  Ctrl-C               stops an answer; twice at the prompt leaves");
  return ChatAction::kStay;
}

}  // namespace

bool is_chat_command(const std::string& message) {
  if (!message.starts_with('/') || message.starts_with("//")) return false;
  // /usr/bin/env and the like are no slip of a command, nor is what has lines.
  const std::string_view word =
      std::string_view(message).substr(1, message.find_first_of(" \t\n") - 1);
  return message.find('\n') == std::string::npos && word.find('/') == std::string_view::npos;
}

std::string message_of(const std::string& typed) {
  return typed.starts_with("//") ? typed.substr(1) : typed;
}

Result<ChatAction> run_chat_command(Call& call, ChatPartner& partner, ChatState& state,
                                    const std::string& line) {
  const size_t space = std::min(line.find(' '), line.size());
  const std::string_view name = std::string_view(line).substr(1, space - 1);
  const size_t begin = line.find_first_not_of(' ', space);
  std::string rest = begin == std::string::npos ? "" : line.substr(begin);
  rest.resize(rest.find_last_not_of(" \t") + 1);
  Context context{call, partner, state, std::move(rest)};
  for (const Command& command : kCommands) {
    if (command.name != name) continue;
    if (command.arguments.empty() && !context.rest.empty()) {
      return invalid_argument(
          fmt::format("/{} takes nothing behind it; a message that begins with a slash is "
                      "written with two",
                      name));
    }
    return command.handler(context);
  }
  std::vector<std::string_view> names;
  for (const Command& command : kCommands) names.push_back(command.name);
  return invalid_argument(
      fmt::format("there is no command /{}{}; /help lists them, and a message that begins "
                  "with a slash is written with two",
                  printable(name.substr(0, kCommandShown)), suggestion(name, names, "/")));
}

}  // namespace penstock
