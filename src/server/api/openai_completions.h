// POST /v1/completions: plain text continued, as benchmark harnesses ask for it.
//
// A prompt is text (in which control tokens count), or token ids. Several prompts are not taken.
//
// Source  OpenAI's API reference (legacy), llama.cpp's server
#pragma once

#include <variant>

#include "server/api/reply.h"

namespace penstock {

std::variant<ChatCall, ApiError> read_openai_completion(const Json& body, const ServedModel& model);

class OpenAiCompletionReplier : public Replier {
 public:
  Protocol protocol() const override { return Protocol::kOpenAi; }
  std::string id_prefix() const override { return "cmpl-"; }
  std::string begin(const ReplyState& reply) override;
  std::string heartbeat(const ReplyState& reply) override;
  std::string prompt_progress(const ReplyState& reply) override;
  std::string delta(const ReplyState& reply, int choice, const ReplyDelta& delta) override;
  std::string end_choice(const ReplyState& reply, int choice) override;
  std::string end(const ReplyState& reply) override;
  std::string error(const ReplyState& reply, const ApiError& error) override;
  Json whole(const ReplyState& reply) override;
};

}  // namespace penstock
