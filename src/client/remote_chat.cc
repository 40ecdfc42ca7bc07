#include "client/remote_chat.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {
namespace {

Result<void> check_key(const std::string& key) {
  const bool is_plain = std::ranges::all_of(key, [](char c) { return c > ' ' && c < 0x7f; });
  if (is_plain) return {};
  return Error{ErrorCode::kInvalidArgument, "the API key has blanks or control characters"};
}

}  // namespace

Json remote_messages(const std::string& system, const Json& messages) {
  Json sent = Json::array();
  if (!system.empty()) sent.push_back(Json{{"role", "system"}, {"content", system}});
  for (Json message : messages) {
    const auto calls = message.find("tool_calls");
    if (calls != message.end() && calls->is_array()) {
      for (Json& call : *calls) {
        const auto function = call.find("function");
        if (function == call.end() || !function->is_object()) continue;
        const auto arguments = function->find("arguments");
        if (arguments != function->end() && !arguments->is_string())
          *arguments = to_text(*arguments);
      }
    }
    sent.push_back(std::move(message));
  }
  return sent;
}

ClientRequest RemoteChat::request(std::string method, std::string path) const {
  ClientRequest request{std::move(method), std::move(path)};
  request.headers.emplace_back("Accept", "application/json, text/event-stream");
  if (!options_.key.empty()) {
    request.headers.emplace_back("Authorization", "Bearer " + options_.key);
  }
  return request;
}

// An answer other than 200, in words.
Error RemoteChat::refusal(const ClientAnswer& answer, std::string_view body) const {
  const std::string place =
      options_.url.socket_path.empty() ? options_.url.authority() : options_.url.socket_path;
  const std::string said = error_message_of(body);
  const std::string words = said.empty() ? "" : ": " + said;
  switch (answer.status) {
    case 401:
    case 403:
      return {ErrorCode::kInvalidArgument,
              fmt::format("{} {}{}; keys come from --api-key-file or PENSTOCK_API_KEY", place,
                          options_.key.empty() ? "wants an API key" : "does not take the API key",
                          words)};
    case 404:
      return {ErrorCode::kInvalidArgument,
              fmt::format("{} has nothing at {} (404){}; is the path of --server right?", place,
                          options_.url.base, words)};
    case 429:
    case 503:
    case 529:
      return {ErrorCode::kIo,
              fmt::format("{} is busy ({}){}{}", place, answer.status, words,
                          answer.retry_after.empty()
                              ? std::string()
                              : fmt::format("; again in {} s", answer.retry_after))};
    default: break;
  }
  if (answer.status >= 300 && answer.status < 400) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{} sends elsewhere ({}), which is not followed: give the final address",
                        place, answer.status)};
  }
  const bool is_ours = answer.status >= 400 && answer.status < 500;
  return {is_ours ? ErrorCode::kInvalidArgument : ErrorCode::kIo,
          fmt::format("{} answers {}{}", place, answer.status, words)};
}

Result<RemoteChat> RemoteChat::connect(RemoteOptions options, const std::stop_token& stop) {
  PENSTOCK_TRY(check_key(options.key));
  RemoteChat chat(std::move(options));
  const std::string first = PENSTOCK_TRY(chat.first_model(stop));
  if (chat.options_.model.empty()) chat.options_.model = first;
  return chat;
}

Result<std::string> RemoteChat::first_model(const std::stop_token& stop) const {
  constexpr size_t kListBytesMax = 4 << 20;
  std::string body;
  const auto collect = [&](const ResponseReader&, std::string_view piece) -> Result<void> {
    body += piece;
    if (body.size() <= kListBytesMax) return {};
    return Error{ErrorCode::kIo, "the server's list of models does not end"};
  };
  const ClientPatience patience{.silence = std::chrono::seconds(60)};
  const ClientAnswer answer =
      PENSTOCK_TRY(ask_server(options_.url, request("GET", "/models"), collect, stop, patience));
  // Some servers have no list; a model that was named is asked for all the same.
  if (answer.status == 404 && !options_.model.empty()) return options_.model;
  if (answer.status != 200) return refusal(answer, body);
  const Result<Json> json = parse_json(body, "the server's list of models");
  if (!json) return Error{ErrorCode::kIo, json.error().message};
  const Json* models = json_find(*json, "data");
  const bool has_one = models != nullptr && models->is_array() && !models->empty();
  const Json* id = has_one ? json_find(models->front(), "id") : nullptr;
  if (id != nullptr && id->is_string()) return id->get<std::string>();
  if (!options_.model.empty()) return options_.model;
  return Error{ErrorCode::kIo, "the server names no model; give one with --model"};
}

Result<RemoteAnswer> RemoteChat::answer(const Json& fields, const ChatStream::OnDelta& on_delta,
                                        const std::stop_token& stop) const {
  ClientRequest asked = request("POST", "/chat/completions");
  Json body{{"model", options_.model},
            {"stream", true},
            {"stream_options", Json{{"include_usage", true}}}};
  body.update(fields);
  asked.body = to_text(body);
  std::optional<ChatStream> stream;
  std::string refused;  // the body of an error
  const auto take = [&](const ResponseReader& head, std::string_view piece) -> Result<void> {
    if (head.status() != 200) {
      constexpr size_t kErrorBytesMax = 64 << 10;
      refused += piece.substr(0, kErrorBytesMax - std::min(kErrorBytesMax, refused.size()));
      return {};
    }
    if (!stream) stream.emplace(head.header("Content-Type").starts_with("text/event-stream"));
    return stream->push(piece, on_delta);
  };
  const Result<ClientAnswer> done = ask_server(options_.url, asked, take, stop);
  if (!done && done.error().code == ErrorCode::kCancelled) {
    return RemoteAnswer{stream ? stream->take() : ChatAnswer{}, true};
  }
  if (!done) return done.error();
  if (done->status != 200) return refusal(*done, refused);
  if (!stream) return Error{ErrorCode::kIo, "the server sent an empty answer"};
  return RemoteAnswer{PENSTOCK_TRY(stream->finish(on_delta)), false};
}

}  // namespace penstock
