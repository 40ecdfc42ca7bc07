// Renders templates for template_oracle.py: one JSON object a line in, one out.
//
//   {"template": "...", "variables": {...}}                    -> {"text": "..."} or {"error":
//   "..."}
//   {"template": "...", "messages": [...], "tools": ..., ...}  -> the same, through ChatTemplate
//   "now": [year, month, day, hour, minute, second, microsecond]  what strftime_now tells
#include <fmt/format.h>

#include <cstdio>
#include <ctime>
#include <iostream>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "text/chat_template.h"
#include "text/jinja/template.h"

namespace penstock {
namespace {

jinja::LocalTime time_in(const Json& request) {
  const Json* now = json_find(request, "now");
  const auto part = [&](size_t i) { return now == nullptr ? 1 : now->at(i).get<int>(); };
  std::tm fields{};
  fields.tm_year = part(0) - 1900;
  fields.tm_mon = part(1) - 1;
  fields.tm_mday = part(2);
  fields.tm_hour = part(3);
  fields.tm_min = part(4);
  fields.tm_sec = part(5);
  const std::time_t seconds = ::timegm(&fields);  // fills in the day of the week and of the year
  jinja::LocalTime time;
  ::gmtime_r(&seconds, &time.fields);
  time.microseconds = part(6);
  return time;
}

Result<std::string> render_chat(const Json& request, const std::string& source) {
  const ChatTemplate chat = PENSTOCK_TRY(ChatTemplate::create(source, "template"));
  ChatOptions options;
  options.add_generation_prompt = PENSTOCK_TRY(json_bool(request, "add_generation_prompt", "line"));
  const Json* thinking = json_find(request, "enable_thinking");
  if (thinking != nullptr) options.enable_thinking = thinking->get<bool>();
  options.now = time_in(request);
  const Json* tools = json_find(request, "tools");
  return chat.render(request.at("messages"), tools == nullptr ? Json() : *tools, options);
}

Result<std::string> render_plain(const Json& request, const std::string& source) {
  const auto compiled = PENSTOCK_TRY(jinja::Template::compile(source));
  jinja::Template::Variables variables;
  for (const auto& [name, value] : request.at("variables").items()) {
    variables.emplace_back(name, value);
  }
  return compiled.render(variables, time_in(request));
}

Result<std::string> answer(const std::string& line) {
  const Json request = PENSTOCK_TRY(parse_json(line, "line"));
  const std::string source = PENSTOCK_TRY(json_string(request, "template", "line"));
  const bool is_chat = json_find(request, "messages") != nullptr;
  return is_chat ? render_chat(request, source) : render_plain(request, source);
}

}  // namespace
}  // namespace penstock

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto text = penstock::answer(line);
    penstock::Json reply = penstock::Json::object();
    if (text) {
      reply["text"] = *text;
    } else {
      reply["error"] = text.error().message;
    }
    fmt::print("{}\n", penstock::to_text(reply));
  }
  return 0;
}
