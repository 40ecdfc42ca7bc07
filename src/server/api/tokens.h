// POST /tokenize, /detokenize and /apply-template: text to token ids and back, and the prompt that
// a conversation becomes.
#pragma once

#include <variant>

#include "server/api/chat_call.h"

namespace penstock {

std::variant<Json, ApiError> tokenize(const Json& body, const ServedModel& model);
std::variant<Json, ApiError> detokenize(const Json& body, const ServedModel& model);
// What /v1/chat/completions would be given.
std::variant<Json, ApiError> apply_template(const Json& body, const ServedModel& model);

}  // namespace penstock
