#include "client/http_response.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace penstock {
namespace {

namespace beast_http = boost::beast::http;
using BeastError = boost::beast::http::error;

Error error_of(const boost::system::error_code& code) {
  if (code == BeastError::body_limit) {
    return {ErrorCode::kIo,
            fmt::format("the server sends more than {} MiB", ResponseReader::kBodyBytesMax >> 20)};
  }
  if (code == BeastError::partial_message || code == BeastError::end_of_stream) {
    return {ErrorCode::kIo, "the server closed the connection in the middle of its answer"};
  }
  return {ErrorCode::kIo,
          fmt::format("what the server sends is not HTTP/1.1 ({})", code.message())};
}

}  // namespace

struct ResponseReader::Parts {
  beast_http::response_parser<beast_http::string_body> parser;
};

ResponseReader::ResponseReader() : parts_(std::make_unique<Parts>()) {
  parts_->parser.header_limit(kHeadBytesMax);
  parts_->parser.body_limit(kBodyBytesMax);
  parts_->parser.eager(true);
}
ResponseReader::~ResponseReader() = default;

bool ResponseReader::has_head() const {
  return parts_->parser.is_header_done();
}
bool ResponseReader::is_done() const {
  return parts_->parser.is_done();
}
int ResponseReader::status() const {
  return static_cast<int>(parts_->parser.get().result_int());
}

std::string ResponseReader::header(std::string_view name) const {
  const auto value = parts_->parser.get()[boost::beast::string_view(name.data(), name.size())];
  return {value.data(), value.size()};
}

// The body is handed on as it comes and not kept.
void ResponseReader::take_body(std::string& body) {
  std::string& came = parts_->parser.get().body();
  body += came;
  came.clear();
}

Result<void> ResponseReader::push(std::string_view bytes, std::string& body) {
  held_ += bytes;
  size_t used = 0;
  while (used < held_.size() && !is_done()) {
    boost::system::error_code code;
    const size_t now =
        parts_->parser.put(boost::asio::buffer(held_.data() + used, held_.size() - used), code);
    used += now;
    take_body(body);
    if (code == BeastError::need_more) break;
    if (code) return error_of(code);
    if (now == 0) break;
  }
  held_.erase(0, used);
  if (held_.size() > kHeadBytesMax) {
    return Error{ErrorCode::kIo, "the server sends a header or a chunk's line without an end"};
  }
  return {};
}

Result<void> ResponseReader::finish(std::string& body) {
  if (is_done()) return {};
  if (!has_head()) {
    return Error{ErrorCode::kIo, "the server closed the connection without an answer"};
  }
  boost::system::error_code code;
  parts_->parser.put_eof(code);
  take_body(body);
  if (code) return error_of(code);
  return {};
}

}  // namespace penstock
