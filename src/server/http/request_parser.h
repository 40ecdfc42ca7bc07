// Bytes of a connection to requests: no sockets, no clock, so that it can be tested and fuzzed alone.
//
// The grammar is Boost.Beast's. Checked before it: control characters and line ends without a
// carriage return are refused at the byte where they come, and lines that continue the one before
// (obs-fold) at all. What follows a whole request stays here and begins the next one.
//
//   RequestParser parser(limits);
//   if (auto error = parser.push(bytes)) refuse(*error);
//   if (parser.has_head()) look_at(parser.head());      // before the body has come
//   if (parser.is_done()) handle(parser.take());
//
// Threads  one
// Memory   one head (head_bytes), one body (body_bytes), and what was pipelined behind them
// Errors   push(): 400, 411, 413, 414, 431, 505; the connection is then of no further use
// Source   RFC 9112
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http/message.h"

namespace penstock {

struct HttpLimits {
  size_t head_bytes = 16 << 10;
  size_t target_bytes = 8 << 10;
  uint64_t body_bytes = 32 << 20;
};

class RequestParser {
 public:
  explicit RequestParser(const HttpLimits& limits);
  ~RequestParser();
  RequestParser(RequestParser&&) noexcept;
  RequestParser& operator=(RequestParser&&) noexcept;

  // Takes in what has come; an empty text lets it go on with what it already holds.
  std::optional<HttpError> push(std::string_view bytes);

  bool is_idle() const;   // nothing of a request has come
  bool has_head() const;  // head() is whole; its body may not be
  bool is_done() const;
  const HttpRequest& head() const;
  uint64_t body_bytes() const;            // that have come so far
  uint64_t announced_body_bytes() const;  // 0 when chunked
  size_t held_bytes() const;              // not looked at yet

  // The request, once is_done(); the next one begins.
  HttpRequest take();

 private:
  struct Parts;
  std::optional<HttpError> push_head();
  std::optional<HttpError> push_body();
  std::optional<HttpError> read_head();

  HttpLimits limits_;
  std::unique_ptr<Parts> parts_;
  std::string held_;
  size_t scanned_ = 0;  // of held_, without a complaint and without the end of a head
  HttpRequest request_;
  bool has_head_ = false;
  bool is_done_ = false;
};

}  // namespace penstock
