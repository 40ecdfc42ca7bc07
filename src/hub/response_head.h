// The head of an answer over HTTP, as far as downloads need it: parsed line by line from what a
// stranger sends.
//
// Threads  any
// Source   RFC 9110 (fields), RFC 7232 (ETag), RateLimit fields as the Hub sends them
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

struct ContentRange {
  uint64_t first = 0, last = 0;  // both included
  std::optional<uint64_t> total;
};

struct ResponseHead {
  int status = 0;
  std::string location, etag, error_code, error_message;
  std::string retry_after, rate_limit;
  std::optional<ContentRange> content_range;
  std::optional<uint64_t> content_length;
  bool has_bad_range = false;  // a Content-Range that says nothing

  // One line without its end. A status line begins a new head, as after "100 Continue".
  void add_line(std::string_view line);

  bool is_redirect() const {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
  }
  // Good for If-Range: an ETag that is not weak.
  std::string strong_etag() const { return etag.starts_with("W/") ? "" : etag; }
  // Seconds that the server asks to wait; nothing where it does not say. `now`: seconds since 1970.
  std::optional<uint64_t> wait_s(int64_t now) const;
};

// "bytes 0-99/1234"; "bytes 0-99/*" has no total.
std::optional<ContentRange> parse_content_range(std::string_view text);

}  // namespace penstock
