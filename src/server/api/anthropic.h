// POST /v1/messages and /v1/messages/count_tokens: the Messages API of Anthropic, as Claude Code and
// the official package speak it.
//
// Thinking is off unless "thinking" asks for it. A line in the system prompt that changes with every
// request (x-anthropic-billing-header) is left out, or no prompt would share a prefix with the next.
//
// Source  Anthropic's API reference, version 2023-06-01
#pragma once

#include <variant>

#include "server/api/reply.h"

namespace penstock {

std::variant<ChatCall, ApiError> read_anthropic(const Json& body, const ServedModel& model);
std::variant<Json, ApiError> count_anthropic_tokens(const Json& body, const ServedModel& model);

class AnthropicReplier : public Replier {
 public:
  Protocol protocol() const override { return Protocol::kAnthropic; }
  std::string id_prefix() const override { return "msg_"; }
  std::string call_id_prefix() const override { return "toolu_"; }
  std::string begin(const ReplyState& reply) override;
  std::string heartbeat(const ReplyState& reply) override;
  std::string delta(const ReplyState& reply, int choice, const ReplyDelta& delta) override;
  std::string end_choice(const ReplyState& reply, int choice) override;
  std::string end(const ReplyState& reply) override;
  std::string error(const ReplyState& reply, const ApiError& error) override;
  Json whole(const ReplyState& reply) override;

 private:
  std::string open(std::string_view type, Json block);
  std::string close();

  int block_ = -1;         // index of the one that is open, or was last
  std::string open_type_;  // "text", "thinking", "tool_use"; empty: none is open
};

}  // namespace penstock
