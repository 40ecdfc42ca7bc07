// A chat with a server that has OpenAI's API: what is asked and what is told.
//
//   RemoteChat chat = PENSTOCK_TRY(RemoteChat::connect(options, stop));
//   const RemoteAnswer answer = PENSTOCK_TRY(chat.answer(fields, on_delta, stop));
//
// Threads  as http_client.h
// Memory   a request and an answer
// Errors   kInvalidArgument: the server refuses the request, or its key; kIo: everything else that
//          goes wrong there or on the way, in words for a person; kCancelled while connecting
#pragma once

#include <stop_token>
#include <string>

#include "client/chat_stream.h"
#include "client/http_client.h"

namespace penstock {

struct RemoteOptions {
  ServerUrl url;
  std::string key;    // empty: none
  std::string model;  // empty: the first that the server names
};

struct RemoteAnswer {
  ChatAnswer answer;
  bool is_cancelled = false;  // `stop` was requested: what came until then
};

class RemoteChat {
 public:
  // Asks for the server's models: it is there, and takes the key.
  static Result<RemoteChat> connect(RemoteOptions options, const std::stop_token& stop);

  const std::string& model() const { return options_.model; }
  const ServerUrl& url() const { return options_.url; }

  // `fields`: messages and what else the body is to have, besides model and stream.
  Result<RemoteAnswer> answer(const Json& fields, const ChatStream::OnDelta& on_delta,
                              const std::stop_token& stop) const;

 private:
  explicit RemoteChat(RemoteOptions options) : options_(std::move(options)) {}
  ClientRequest request(std::string method, std::string path) const;
  Error refusal(const ClientAnswer& answer, std::string_view body) const;
  Result<std::string> first_model(const std::stop_token& stop) const;

  RemoteOptions options_;
};

// Messages as OpenAI's API has them: the system's first, arguments of calls as JSON text.
Json remote_messages(const std::string& system, const Json& messages);

}  // namespace penstock
