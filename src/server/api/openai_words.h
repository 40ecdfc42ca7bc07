// What chat and completions of OpenAI's API say alike: the frame around choices.
//
// object   the kind that clients ask for: "chat.completion", "chat.completion.chunk", "text_completion"
// Threads  plain functions
#pragma once

#include <string>
#include <string_view>

#include "server/api/reply.h"

namespace penstock {

// Of a stream.
Json openai_chunk(const ReplyState& reply, std::string_view object, Json choices);
// The last words of a stream, with the usage before them where it was asked for.
std::string openai_end(const ReplyState& reply, std::string_view object);
// Without a stream.
Json openai_whole(const ReplyState& reply, std::string_view object, Json choices);

}  // namespace penstock
