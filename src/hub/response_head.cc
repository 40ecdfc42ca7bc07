#include "hub/response_head.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace penstock {
namespace {

constexpr size_t kFieldBytesMax = 16 << 10;

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// All of it digits.
std::optional<uint64_t> number_of(std::string_view text) {
  uint64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool good = failure == std::errc{} && end == text.data() + text.size() && !text.empty();
  return good ? std::optional(value) : std::nullopt;
}

// "HTTP/1.1 206 Partial Content"
int status_of(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == line.npos) return 0;
  const auto status = number_of(line.substr(space + 1, 3));
  return status && *status >= 100 && *status <= 599 ? static_cast<int>(*status) : 0;
}

}  // namespace

void ResponseHead::add_line(std::string_view line) {
  line = trimmed(line);
  if (line.starts_with("HTTP/")) {
    *this = ResponseHead{};
    status = status_of(line);
    return;
  }
  const size_t colon = line.find(':');
  if (colon == line.npos || line.size() > kFieldBytesMax) return;
  std::string name(line.substr(0, colon));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (name == "location") location = value;
  if (name == "etag") etag = value;
  if (name == "x-error-code") error_code = value;
  if (name == "x-error-message") error_message = value;
  if (name == "retry-after") retry_after = value;
  if (name == "ratelimit") rate_limit = value;
  if (name == "content-length") content_length = number_of(value);
  if (name == "content-range") {
    content_range = parse_content_range(value);
    has_bad_range = !content_range;
  }
}

std::optional<uint64_t> ResponseHead::wait_s(int64_t now) const {
  if (const auto seconds = number_of(retry_after)) return seconds;
  if (!retry_after.empty()) {
    const auto date = static_cast<int64_t>(curl_getdate(retry_after.c_str(), nullptr));
    if (date >= 0) return static_cast<uint64_t>(std::max<int64_t>(0, date - now));
  }
  // "api";r=0;t=55: nothing remains, for 55 seconds.
  const size_t reset = rate_limit.find(";t=");
  if (reset == rate_limit.npos) return {};
  const std::string_view rest = std::string_view(rate_limit).substr(reset + 3);
  return number_of(rest.substr(0, rest.find_first_not_of("0123456789")));
}

std::optional<ContentRange> parse_content_range(std::string_view text) {
  if (!text.starts_with("bytes ")) return {};
  text = trimmed(text.substr(6));
  const size_t dash = text.find('-'), slash = text.find('/');
  if (dash == text.npos || slash == text.npos || slash < dash) return {};
  const auto first = number_of(text.substr(0, dash));
  const auto last = number_of(text.substr(dash + 1, slash - dash - 1));
  const std::string_view total = text.substr(slash + 1);
  if (!first || !last || *first > *last) return {};
  ContentRange range{*first, *last, number_of(total)};
  if (total != "*" && (!range.total || *range.total <= *last)) return {};
  return range;
}

}  // namespace penstock
