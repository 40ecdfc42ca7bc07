#include "client/chat_stream.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {
namespace {

constexpr size_t kErrorBytesShown = 500;

std::string text_at(const Json& object, std::string_view key) {
  const Json* value = json_find(object, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

int64_t number_at(const Json& object, std::string_view key) {
  const Json* value = json_find(object, key);
  return value != nullptr && value->is_number_integer() ? value->get<int64_t>() : 0;
}

// {"error": {"message": ...}}, {"error": "..."}, {"message": ...}
std::string message_in(const Json& json) {
  const Json* error = json_find(json, "error");
  if (error != nullptr && error->is_string()) return error->get<std::string>();
  return text_at(error != nullptr && error->is_object() ? *error : json, "message");
}

}  // namespace

std::string error_message_of(std::string_view body) {
  const Result<Json> json = parse_json(body, "the answer");
  if (json) {
    const std::string message = message_in(*json);
    if (!message.empty()) return message;
  }
  return std::string(body.substr(0, kErrorBytesShown));
}

Result<void> ChatStream::push(std::string_view body, const OnDelta& on_delta) {
  bytes_ += body.size();
  if (bytes_ > kAnswerBytesMax) {
    return Error{ErrorCode::kIo,
                 fmt::format("the answer has more than {} MiB", kAnswerBytesMax >> 20)};
  }
  held_ += body;
  if (!is_events_) return {};
  size_t begin = 0;
  for (size_t end = held_.find('\n'); end != std::string::npos; end = held_.find('\n', begin)) {
    std::string_view line = std::string_view(held_).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    PENSTOCK_TRY(take_line(line, on_delta));
    begin = end + 1;
  }
  held_.erase(0, begin);
  return {};
}

// A line of server-sent events; comments and other fields than data are passed over.
Result<void> ChatStream::take_line(std::string_view line, const OnDelta& on_delta) {
  if (line.starts_with("data:")) {
    line.remove_prefix(5);
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (!event_.empty()) event_ += '\n';
    event_ += line;
    return {};
  }
  if (!line.empty() || event_.empty()) return {};
  const std::string data = std::exchange(event_, "");
  if (data == "[DONE]") {
    is_ended_ = true;
    return {};
  }
  const Result<Json> json = parse_json(data, "an event of the server");
  if (!json) return Error{ErrorCode::kIo, json.error().message};
  return take_object(*json, on_delta);
}

Result<void> ChatStream::take_object(const Json& json, const OnDelta& on_delta) {
  if (!json.is_object()) return Error{ErrorCode::kIo, "an event of the server is no object"};
  if (json_find(json, "error") != nullptr) {
    return Error{ErrorCode::kIo, "the server says: " + message_in(json)};
  }
  if (const Json* usage = json_find(json, "usage")) answer_.usage = *usage;
  if (const Json* timings = json_find(json, "timings")) answer_.timings = *timings;
  if (const Json* progress = json_find(json, "prompt_progress");
      progress && progress->is_object()) {
    on_delta({ChatDelta::Kind::kPrompt, "", number_at(*progress, "processed"),
              number_at(*progress, "total")});
  }
  if (const int64_t position = number_at(json, "queue_position"); position > 0) {
    on_delta({ChatDelta::Kind::kQueue, "", position, 0});
  }
  const Json* choices = json_find(json, "choices");
  if (choices == nullptr || !choices->is_array() || choices->empty()) return {};
  const Json& choice = choices->front();
  const Json* message = json_find(choice, "delta");
  if (message == nullptr) message = json_find(choice, "message");
  if (message != nullptr) PENSTOCK_TRY(take_message(*message, on_delta));
  const std::string reason = text_at(choice, "finish_reason");
  if (!reason.empty()) {
    answer_.finish_reason = reason;
    is_ended_ = true;
  }
  return {};
}

Result<void> ChatStream::take_message(const Json& message, const OnDelta& on_delta) {
  std::string reasoning = text_at(message, "reasoning_content");
  if (reasoning.empty()) reasoning = text_at(message, "reasoning");
  answer_.reasoning += reasoning;
  if (!reasoning.empty()) on_delta({ChatDelta::Kind::kReasoning, reasoning});
  const std::string content = text_at(message, "content");
  answer_.content += content;
  if (!content.empty()) on_delta({ChatDelta::Kind::kContent, content});
  const Json* calls = json_find(message, "tool_calls");
  if (calls == nullptr || !calls->is_array()) return {};
  for (size_t i = 0; i < calls->size(); ++i) PENSTOCK_TRY(take_call((*calls)[i], i, on_delta));
  return {};
}

Result<void> ChatStream::take_call(const Json& call, size_t position, const OnDelta& on_delta) {
  const Json* function = json_find(call, "function");
  if (function == nullptr || !function->is_object()) return {};
  const Json* given = json_find(call, "index");
  const int64_t index = given != nullptr && given->is_number_integer()
                            ? given->get<int64_t>()
                            : static_cast<int64_t>(position);
  size_t i = static_cast<size_t>(std::ranges::find(indices_, index) - indices_.begin());
  const std::string name = text_at(*function, "name");
  if (i == indices_.size()) {
    if (indices_.size() == kAnswerCallsMax) {
      return Error{ErrorCode::kIo,
                   fmt::format("the answer has more than {} calls", kAnswerCallsMax)};
    }
    indices_.push_back(index);
    answer_.calls.push_back({text_at(call, "id"), name, ""});
    on_delta({ChatDelta::Kind::kCallBegin, name});
  }
  const Json* arguments = json_find(*function, "arguments");
  if (arguments == nullptr) return {};
  answer_.calls[i].arguments +=
      arguments->is_string() ? arguments->get<std::string>() : to_text(*arguments);
  return {};
}

Result<ChatAnswer> ChatStream::finish(const OnDelta& on_delta) {
  if (is_events_) {
    PENSTOCK_TRY(push("\n\n", on_delta));  // an event that the end of the stream ends
  } else {
    const Result<Json> json = parse_json(held_, "the server's answer");
    if (!json) return Error{ErrorCode::kIo, json.error().message};
    if (json_find(*json, "choices") == nullptr && json_find(*json, "error") == nullptr) {
      return Error{ErrorCode::kIo,
                   "the server's answer has no choices: is it one with OpenAI's API?"};
    }
    PENSTOCK_TRY(take_object(*json, on_delta));
    is_ended_ = true;
  }
  if (!is_ended_) {
    return Error{ErrorCode::kIo, "the answer broke off: the server ended it without a reason"};
  }
  return take();
}

}  // namespace penstock
