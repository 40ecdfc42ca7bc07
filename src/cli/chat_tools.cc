#include "cli/chat_tools.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/byte_text.h"

namespace penstock {
namespace {

// Also what this program is told in secret stays with it.
std::vector<std::string> environment_for_commands(const Environment& environment) {
  std::vector<std::string> kept;
  for (const auto& [name, value] : environment.variables()) {
    if (!name.starts_with("PENSTOCK_")) kept.push_back(name + "=" + value);
  }
  return kept;
}

std::string indented(const std::string& text) {
  std::string out = "  ";
  for (const char c : text) {
    out += c;
    if (c == '\n') out += "  ";
  }
  return out;
}

std::string name_in(const Json& call) {
  const Json* function = json_find(call, "function");
  const Json* name = function == nullptr ? nullptr : json_find(*function, "name");
  return name != nullptr && name->is_string() ? name->get<std::string>() : "";
}

Json arguments_in(const Json& call) {
  const Json* function = json_find(call, "function");
  const Json* arguments = function == nullptr ? nullptr : json_find(*function, "arguments");
  return arguments == nullptr ? Json() : *arguments;
}

}  // namespace

Result<void> ChatTools::check(const Call& call, const ToolSet& allowed) {
  if (!allowed.has(Tool::kRun) || call.terminal.input_is_interactive()) return {};
  return Error{
      ErrorCode::kInvalidArgument,
      "run among the allowed tools: each command is asked about before it runs, and "
      "standard input is no terminal, so nobody can agree; read and list work without one"};
}

Result<ChatTools> ChatTools::open(Call& call) {
  const std::string& given = call.settings.text("workspace");
  Result<ToolBox> box =
      ToolBox::open(given.empty() ? "." : given, environment_for_commands(call.environment));
  if (!box) return Error{ErrorCode::kInvalidArgument, "--workspace: " + box.error().message};
  return ChatTools(call, *std::move(box));
}

ChatTools::Consent ChatTools::ask(LineReader& lines) const {
  const Line line = lines.read("  run it? [y/N] ");
  if (line.status == Line::Status::kInterrupted || line.status == Line::Status::kEnd) {
    return Consent::kLeave;
  }
  return line.text == "y" || line.text == "Y" || line.text == "yes" ? Consent::kYes : Consent::kNo;
}

ChatTools::Outcome ChatTools::carry_out_one(const ToolSet& allowed, const Json& call,
                                            LineReader& lines) {
  const std::string name = name_in(call);
  const Result<ToolAction> action = read_action(allowed, name, arguments_in(call));
  const Terminal& terminal = call_.terminal;
  if (!action) {
    terminal.show(fmt::format("tool: {} - not carried out: {}\n", message_text(name),
                              message_text(action.error().message)));
    const bool is_known = std::ranges::any_of(tool_definitions(allowed), [&](const Json& tool) {
      return tool["function"]["name"] == name;
    });
    return {"error: " + action.error().message, is_known, false};
  }
  const std::string shown = describe(*action);
  const std::string visible = table_text(shown);
  terminal.show(fmt::format("tool: {}\n", indented(visible).substr(2)));
  if (action->tool == Tool::kRun) {
    // What is agreed to is what is seen.
    if (visible != shown) {
      terminal.show("  not asked about: it has characters that cannot be shown\n");
      return {"error: the command has control characters, or a line that is too long to be shown",
              true, false};
    }
    const Consent consent = ask(lines);
    if (consent == Consent::kLeave) return {"error: the user stopped here", true, true};
    if (consent == Consent::kNo)
      return {"error: the user did not agree to this command", true, false};
  }
  const std::string text = box_.act(*action, call_.interrupt.token());
  terminal.show(fmt::format("  {}, {}\n",
                            message_text(text.substr(0, text.find('\n')).substr(0, 60)),
                            format_bytes(text.size())));
  // Neither the terminal of who reads the conversation later nor a template is to find more in it
  // than text.
  return {printable(text), true, call_.interrupt.token().stop_requested()};
}

ChatTools::After ChatTools::carry_out(const ToolSet& allowed, const Json& message,
                                      LineReader& lines, Json& messages) {
  bool was_tried = false;
  bool is_over = false;
  for (const Json& call : message.at("tool_calls")) {
    Outcome outcome{"error: the user stopped here", false, true};
    if (!is_over) outcome = carry_out_one(allowed, call, lines);
    was_tried = was_tried || outcome.was_tried;
    is_over = is_over || outcome.is_over;
    Json result{{"role", "tool"}, {"name", name_in(call)}, {"content", std::move(outcome.text)}};
    if (const Json* id = json_find(call, "id")) result["tool_call_id"] = *id;
    messages.push_back(std::move(result));
  }
  return was_tried && !is_over ? After::kAnswer : After::kStop;
}

}  // namespace penstock
