#include "server/api/body.h"

#include <fmt/format.h>

namespace penstock {
namespace {

// An upper bound for the values in a JSON text: everything but the first follows one of these.
size_t count_values(std::string_view text) {
  size_t count = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else {
      if (c == '"') in_string = true;
      if (c == ',' || c == ':' || c == '[' || c == '{') ++count;
    }
  }
  return count;
}

bool holds_nul(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return true;
  for (size_t at = text.find("\\u0000"); at != std::string_view::npos;
       at = text.find("\\u0000", at + 1)) {
    size_t backslashes = 0;
    while (backslashes < at && text[at - 1 - backslashes] == '\\') ++backslashes;
    if (backslashes % 2 == 0) return true;
  }
  return false;
}

}  // namespace

std::variant<Json, ApiError> parse_body(std::string_view body) {
  if (body.empty()) return ApiError{.message = "the body is empty; a JSON object is expected"};
  if (body.starts_with("\xef\xbb\xbf")) {
    return ApiError{.message = "the body begins with a byte order mark, which JSON does not have"};
  }
  if (holds_nul(body)) return ApiError{.message = "the body holds a NUL character"};
  if (count_values(body) > kJsonValuesMax) {
    return ApiError{.message = fmt::format("the body holds more than {} values", kJsonValuesMax)};
  }
  Result<Json> json = parse_json(body, "the body");
  if (!json) return ApiError{.message = json.error().message};
  if (!json->is_object()) return ApiError{.message = "the body must be a JSON object"};
  return std::move(*json);
}

}  // namespace penstock
