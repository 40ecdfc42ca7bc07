// POST /v1/responses, without state: the whole conversation comes with every request, as Codex and
// the official package send it with "store": false.
//
// Tools and items of kinds that are not known are skipped, and named in X-Penstock-Ignored.
// Developer and system items behind the beginning are moved into the system message.
//
// Source  OpenAI's API reference
#pragma once

#include <variant>

#include "server/api/reply.h"

namespace penstock {

std::variant<ChatCall, ApiError> read_openai_response(const Json& body, const ServedModel& model);

class OpenAiResponseReplier : public Replier {
 public:
  Protocol protocol() const override { return Protocol::kOpenAi; }
  std::string id_prefix() const override { return "resp_"; }
  std::string begin(const ReplyState& reply) override;
  std::string heartbeat(const ReplyState& reply) override;
  std::string delta(const ReplyState& reply, int choice, const ReplyDelta& delta) override;
  std::string end_choice(const ReplyState& reply, int choice) override;
  std::string end(const ReplyState& reply) override;
  std::string error(const ReplyState& reply, const ApiError& error) override;
  Json whole(const ReplyState& reply) override;

 private:
  enum class Item { kNoItem, kReasoning, kMessage, kCall };

  std::string event(std::string_view type, Json data);
  std::string open(const ReplyState& reply, Item kind, const ReplyDelta& delta);
  std::string close();
  Json response(const ReplyState& reply, std::string_view status) const;

  int64_t sequence_ = 0;
  Item open_ = Item::kNoItem;
  Json item_;                    // the one that is open
  std::string text_;             // of it, so far
  Json output_ = Json::array();  // items that have ended
};

}  // namespace penstock
