// chat: a conversation at the keyboard, or line by line from a pipe; with a model that is loaded here or
// with a server, and with tools that the user allows.

#include <fmt/format.h>

#include "cli/chat_partner.h"
#include "cli/chat_tools.h"
#include "cli/conversation_flags.h"
#include "cli/generation.h"
#include "cli/line_reader.h"
#include "cli/sampling_flags.h"
#include "text/utf8.h"

namespace penstock {

bool PartnerAnswer::is_empty() const {
  return message.at("content") == "" && !message.contains("reasoning_content") && !has_calls();
}

Json answer_message(const std::string& content, const std::string& reasoning, const Json& calls) {
  Json message = reply_message({reasoning, content});
  if (!calls.empty()) message["tool_calls"] = calls;
  return message;
}

Json call_json(const std::string& id, const std::string& name, const std::string& arguments) {
  const Result<Json> parsed = parse_json(arguments.empty() ? "{}" : arguments, "arguments");
  const bool is_object = parsed && parsed->is_object();
  return Json{{"id", id},
              {"type", "function"},
              {"function", {{"name", name}, {"arguments", is_object ? *parsed : Json(arguments)}}}};
}

Json ChatState::offered_tools() const {
  Json tools = conversation.tools;
  if (allowed.is_empty()) return tools;
  if (!tools.is_array()) tools = Json::array();
  for (const Json& tool : tool_definitions(allowed)) tools.push_back(tool);
  return tools;
}

namespace {

constexpr char kQuotes[] = "\"\"\"";
// Answers to one message that ask for tools; then the user has a say.
constexpr int kRoundsMax = 25;

class Chat {
 public:
  Chat(Call& call, ChatPartner& partner, ChatState& state, LineReader& lines, ChatTools tools)
      : call_(call), partner_(partner), state_(state), lines_(lines), tools_(std::move(tools)) {
    lines.set_idle_work([this] { return partner_.work_while_idle(); });
  }

  Result<int> run();

 private:
  Line read_message();
  Result<void> handle(const std::string& message, bool& leaves);
  Result<void> answer();
  Result<PartnerAnswer> answer_once(bool is_first);

  Call& call_;
  ChatPartner& partner_;
  ChatState& state_;
  LineReader& lines_;
  ChatTools tools_;
};

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
    if (typed.status == Line::Status::kTooLong) return partner_.text_too_long();
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
    // A window that closes is a signal first, and then a terminal that takes no more text.
    if (!call_.output.is_usable() && call_.interrupt.was_terminated()) return kExitInterrupted;
    if (leaves || !call_.output.is_usable()) return kExitDone;
  }
}

Result<void> Chat::handle(const std::string& message, bool& leaves) {
  const Json before = state_.conversation.messages;
  Result<void> handled;
  if (is_chat_command(message)) {
    const ChatAction action = PENSTOCK_TRY(run_chat_command(call_, partner_, state_, message));
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

// Answers what stands last, and tells how it ended.
Result<PartnerAnswer> Chat::answer_once(bool is_first) {
  PartnerAnswer answer = PENSTOCK_TRY(partner_.answer(state_));
  ++state_.num_answers;
  if (answer.finish == FinishReason::kCancelled) call_.terminal.note("(stopped)");
  if (answer.finish == FinishReason::kLength) {
    call_.terminal.note("(cut short: --max-tokens or the context was reached)");
  }
  if (is_first && answer.finish == FinishReason::kCancelled && answer.is_empty()) {
    return Error{ErrorCode::kCancelled, "no answer; the message is taken back"};
  }
  // What was cut may have lost a part of a call, and nobody will answer it.
  if (answer.finish != FinishReason::kStop) answer.message.erase("tool_calls");
  if (state_.shows_figures) call_.terminal.note(partner_.last_figures());
  partner_.tell_news();
  return answer;
}

// Answers the last message: again and again while the model asks for tools.
Result<void> Chat::answer() {
  for (int round = 0; round < kRoundsMax; ++round) {
    const PartnerAnswer answer = PENSTOCK_TRY(answer_once(round == 0));
    if (!answer.is_empty() || round == 0) state_.conversation.messages.push_back(answer.message);
    if (!answer.has_calls()) return {};
    const ChatTools::After after =
        tools_.carry_out(state_.allowed, answer.message, lines_, state_.conversation.messages);
    if (after == ChatTools::After::kStop) return {};
  }
  call_.terminal.note(fmt::format(
      "(stopped: {} answers in a row have asked for tools; write something to go on)", kRoundsMax));
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

// A model that is named here wins over a server of a settings file.
bool talks_to_server(const Call& call) {
  const Origin origin = call.settings.get("server").origin;
  return origin == Origin::kFlag ||
         (origin != Origin::kBuiltIn && call.settings.arguments().empty());
}

// MODEL or --server, and nothing that only the other one has.
Result<void> check_sides(const Call& call) {
  const bool is_remote = talks_to_server(call);
  const bool has_model = !call.settings.arguments().empty();
  if (is_remote == has_model) {
    return Error{ErrorCode::kInvalidArgument,
                 is_remote ? "chat takes a MODEL or --server URL, not both"
                           : "chat needs MODEL or --server URL; see `penstock help chat`"};
  }
  for (const auto& [name, text] : call.line.flags) {
    const Option* option = find_option(Verb::kChat, name);
    const bool is_of_engine = option->group == "Machine" || name == "trace-routing" ||
                              name == "chat-template-file" || name == "parse-special";
    const bool is_of_server = name == "model" || name == "api-key" || name == "api-key-file";
    if (is_remote && is_of_engine) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("--{} is for a model that is loaded here; the server has its own", name)};
    }
    if (!is_remote && is_of_server) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("--{} goes with --server", name)};
    }
  }
  return {};
}

}  // namespace

Result<int> chat_verb(Call& call) {
  PENSTOCK_TRY(check_sides(call));
  ChatState state;
  state.allowed = PENSTOCK_TRY(parse_tool_set(call.settings.text("allow")));
  PENSTOCK_TRY(ChatTools::check(call, state.allowed));
  ChatTools tools = PENSTOCK_TRY(ChatTools::open(call));
  state.conversation = PENSTOCK_TRY(conversation_of(call.storage, call.settings));
  state.max_tokens = call.settings.integer("max-tokens");
  state.stops = PENSTOCK_TRY(stop_strings_of(call.settings));
  state.shows_figures = call.terminal.is_verbose();
  const bool is_remote = talks_to_server(call);
  const std::unique_ptr<ChatPartner> partner =
      PENSTOCK_TRY(is_remote ? open_remote_partner(call, state) : open_local_partner(call, state));
  if (!state.allowed.is_empty()) {
    PENSTOCK_TRY(partner->check_tools(state.offered_tools()));
    call.terminal.note(fmt::format("tools: {} in {}", text_of(state.allowed), tools.folder()));
  }
  if (call.terminal.input_is_interactive()) call.terminal.note("/help lists the commands");

  call.interrupt.set_policy(Interrupt::Policy::kPatient);
  const auto lines = make_line_reader(call.terminal, call.interrupt,
                                      PENSTOCK_TRY(history_path(call)), partner->text_bytes_max());
  Chat chat(call, *partner, state, *lines, std::move(tools));
  Result<int> code = chat.run();
  const Result<void> ended = partner->end();
  PENSTOCK_TRY(code);
  PENSTOCK_TRY(ended);
  return code;
}

}  // namespace penstock
