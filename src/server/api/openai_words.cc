#include "server/api/openai_words.h"

#include <utility>

namespace penstock {
namespace {

Json frame(const ReplyState& reply, std::string_view object, Json choices) {
  return Json{{"id", reply.id},
              {"object", object},
              {"created", reply.created},
              {"model", reply.model.id},
              {"system_fingerprint", reply.model.fingerprint},
              {"choices", std::move(choices)}};
}

}  // namespace

Json openai_chunk(const ReplyState& reply, std::string_view object, Json choices) {
  Json chunk = frame(reply, object, std::move(choices));
  if (reply.call.includes_usage) chunk["usage"] = nullptr;
  return chunk;
}

std::string openai_end(const ReplyState& reply, std::string_view object) {
  std::string words;
  if (reply.call.includes_usage) {
    Json chunk = openai_chunk(reply, object, Json::array());
    chunk["usage"] = usage_json(reply.progress);
    words = sse(chunk);
  }
  return words + "data: [DONE]\n\n";
}

Json openai_whole(const ReplyState& reply, std::string_view object, Json choices) {
  Json whole = frame(reply, object, std::move(choices));
  whole["usage"] = usage_json(reply.progress);
  whole["timings"] = timings_of(reply.progress);
  whole["seed"] = reply.call.generation.sampling.seed;
  return whole;
}

}  // namespace penstock
