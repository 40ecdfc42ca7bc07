// The JSON body of a request, with the limits that keep a small text from becoming a large tree.
//
// Errors  400: not JSON, a byte order mark, trailing text, duplicate keys, NUL, lone surrogates,
//         nesting beyond kJsonDepthMax, more than kJsonValuesMax values
#pragma once

#include <string_view>
#include <variant>

#include "base/json.h"
#include "server/api/api_error.h"

namespace penstock {

inline constexpr size_t kJsonValuesMax = 300'000;

std::variant<Json, ApiError> parse_body(std::string_view body);

}  // namespace penstock
