// Ollama's own API: POST /api/chat and /api/generate, GET /api/tags and /api/ps, POST /api/show.
//
// Streams are the default and come as one JSON object a line. Thinking is off unless "think" asks
// for it. Sampling options stand in "options". keep_alive is accepted and has no effect: the model
// stays.
//
// Source  Ollama's API reference
#pragma once

#include <variant>

#include "server/api/reply.h"

namespace penstock {

std::variant<ChatCall, ApiError> read_ollama_chat(const Json& body, const ServedModel& model);
// "raw": the prompt as it is; otherwise it is a user's message.
std::variant<ChatCall, ApiError> read_ollama_generate(const Json& body, const ServedModel& model);

Json ollama_tags(const ServedModel& model);
Json ollama_running(const ServedModel& model);
std::variant<Json, ApiError> ollama_show(const Json& body, const ServedModel& model);

class OllamaReplier : public Replier {
 public:
  Protocol protocol() const override { return Protocol::kOllama; }
  std::string id_prefix() const override { return ""; }
  std::string stream_type() const override { return "application/x-ndjson"; }
  std::string begin(const ReplyState&) override { return ""; }
  std::string heartbeat(const ReplyState&) override;
  std::string delta(const ReplyState& reply, int choice, const ReplyDelta& delta) override;
  std::string end_choice(const ReplyState&, int) override { return ""; }
  std::string end(const ReplyState& reply) override;
  std::string error(const ReplyState& reply, const ApiError& error) override;
  Json whole(const ReplyState& reply) override;

 protected:
  // What differs between chat and generate: where the words of an answer stand.
  virtual Json words(const std::string& content, const std::string& thinking,
                     const std::vector<ReplyCall>& calls) const;

 private:
  Json line(const ReplyState& reply, Json words) const;
  Json last_line(const ReplyState& reply, Json words) const;
};

class OllamaGenerateReplier : public OllamaReplier {
 protected:
  Json words(const std::string& content, const std::string& thinking,
             const std::vector<ReplyCall>& calls) const override;
};

}  // namespace penstock
