#include "server/api/messages.h"

#include <fmt/format.h>

namespace penstock {
namespace {

// Arguments come as JSON text, or already as an object.
Json read_arguments(Fields& fields, const Json* arguments, const std::string& name) {
  if (arguments == nullptr) return Json::object();
  if (arguments->is_object()) return *arguments;
  if (arguments->is_string()) {
    const auto& text = arguments->get_ref<const std::string&>();
    if (text.empty()) return Json::object();
    const Result<Json> parsed = parse_json(text, name);
    if (parsed && parsed->is_object()) return *parsed;
  }
  fields.refuse(ApiError{.message = fmt::format("\"{}\" must be the JSON text of an object", name),
                         .param = name});
  return Json::object();
}

Json read_calls(Fields& fields, const Json& calls, const std::string& name) {
  Json read = Json::array();
  for (size_t i = 0; i < calls.size() && fields.is_good(); ++i) {
    const std::string path = fmt::format("{}[{}]", name, i);
    Fields call(calls[i], path + ".");
    call.pass_over({"type", "index"});
    const auto id = call.text("id");
    const Json* function = call.object("function");
    if (function == nullptr)
      call.refuse("function", fmt::format("\"{}.function\" is missing", path));
    if (call.error()) {
      fields.refuse(*call.error());
      return read;
    }
    Fields inner(*function, path + ".function.");
    const auto called = inner.text("name", 256);
    if (!called || called->empty()) {
      inner.refuse("name", fmt::format("\"{}.function.name\" must be a name", path));
    }
    if (inner.error()) {
      fields.refuse(*inner.error());
      return read;
    }
    read.push_back(Json{{"id", id.value_or("")},
                        {"type", "function"},
                        {"function",
                         {{"name", *called},
                          {"arguments", read_arguments(fields, json_find(*function, "arguments"),
                                                       path + ".function.arguments")}}}});
  }
  return read;
}

Json read_message(Fields& fields, const Json& given, const std::string& path) {
  Fields message(given, path + ".");
  const auto role = message.choice("role", {"system", "developer", "user", "assistant", "tool"});
  if (!role) message.refuse("role", fmt::format("\"{}.role\" is missing", path));
  Json read{{"role", role == "developer" ? "system" : role.value_or("")}};
  if (message.is_good()) {
    read["content"] = read_content(message, message.any("content"), path + ".content");
  }
  if (role == "assistant") {
    auto reasoning = message.text("reasoning_content");
    if (!reasoning) reasoning = message.text("reasoning");
    if (reasoning) read["reasoning_content"] = *reasoning;
    const Json* calls = message.array("tool_calls", kOfferedToolsMax);
    if (calls != nullptr && !calls->empty()) {
      read["tool_calls"] = read_calls(message, *calls, path + ".tool_calls");
    }
  } else if (message.has("tool_calls")) {
    message.refuse("tool_calls", fmt::format("only an assistant's message has tool calls, and "
                                             "\"{}\" is none",
                                             path));
  }
  if (message.error()) fields.refuse(*message.error());
  return read;
}

}  // namespace

std::string read_content(Fields& fields, const Json* content, const std::string& name) {
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    fields.refuse(
        ApiError{.message = fmt::format("\"{}\" must be a string or a list of text parts", name),
                 .param = name});
    return "";
  }
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const Json* type = json_find(part, "type");
    const Json* piece = json_find(part, "text");
    const bool is_text = type != nullptr && type->is_string() && piece != nullptr &&
                         piece->is_string() &&
                         (*type == "text" || *type == "input_text" || *type == "output_text");
    if (is_text) {
      text += piece->get_ref<const std::string&>();
      continue;
    }
    const std::string kind = type != nullptr && type->is_string() ? type->get<std::string>() : "?";
    fields.refuse(
        ApiError{.message = fmt::format("\"{}[{}]\" is of type \"{}\"; this server takes text only",
                                        name, i, kind.substr(0, 64)),
                 .param = fmt::format("{}[{}]", name, i)});
    return "";
  }
  return text;
}

Json read_messages(Fields& fields) {
  Json messages = Json::array();
  const Json* list = fields.array("messages", kMessagesMax);
  if (list == nullptr || list->empty()) {
    fields.refuse("messages", "\"messages\" must be a list with at least one message");
    return messages;
  }
  for (size_t i = 0; i < list->size() && fields.is_good(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    Json message = read_message(fields, (*list)[i], path);
    const bool is_system = message["role"] == "system";
    if (is_system && i > 0) {
      if (messages.size() == 1 && messages[0]["role"] == "system") {  // several at the start
        auto& first = messages[0]["content"].get_ref<std::string&>();
        first += "\n\n" + message["content"].get<std::string>();
        continue;
      }
      fields.refuse(ApiError{
          .message = fmt::format("\"{}\" is a system message behind the beginning; the model's "
                                 "template takes it at the beginning only",
                                 path),
          .param = path});
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

Json read_tools(Fields& fields) {
  const Json* list = fields.array("tools", kOfferedToolsMax);
  if (list == nullptr || list->empty()) return Json();
  if (to_text(*list).size() > kOfferedToolsBytesMax) {
    fields.refuse("tools", "\"tools\" must be at most 1 MiB of JSON together");
    return Json();
  }
  for (size_t i = 0; i < list->size() && fields.is_good(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    Fields tool((*list)[i], path + ".");
    tool.choice("type", {"function"});
    const Json* function = tool.object("function");
    if (function == nullptr)
      tool.refuse("function", fmt::format("\"{}.function\" is missing", path));
    if (tool.is_good()) {
      Fields inner(*function, path + ".function.");
      const auto name = inner.text("name", 256);
      if (!name || name->empty()) {
        inner.refuse("name", fmt::format("\"{}.function.name\" must be a name", path));
      }
      inner.text("description");
      inner.object("parameters");
      if (inner.error()) tool.refuse(*inner.error());
    }
    if (tool.error()) fields.refuse(*tool.error());
  }
  return *list;
}

const Json* find_tool(const Json& tools, std::string_view name) {
  if (!tools.is_array()) return nullptr;
  for (const Json& tool : tools) {
    const Json* function = json_find(tool, "function");
    if (function == nullptr) continue;
    const Json* known = json_find(*function, "name");
    if (known != nullptr && known->is_string() && known->get_ref<const std::string&>() == name) {
      return function;
    }
  }
  return nullptr;
}

}  // namespace penstock
