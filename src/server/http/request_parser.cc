#include "server/http/request_parser.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <charconv>

#include "base/check.h"

namespace penstock {
namespace {

namespace beast_http = boost::beast::http;
using BeastError = boost::beast::http::error;

// A chunk's own line may not be longer.
constexpr size_t kChunkLineMax = 4096;

HttpError error_of(const boost::system::error_code& code) {
  if (code == BeastError::header_limit) return {431, "the header is too large"};
  if (code == BeastError::body_limit) return {413, "the body is too large"};
  if (code == BeastError::bad_version) return {505, "only HTTP/1.0 and HTTP/1.1 are spoken here"};
  if (code == BeastError::bad_chunk || code == BeastError::bad_chunk_extension) {
    return {400, "a chunk of the body is malformed"};
  }
  return {400, fmt::format("not a request of HTTP/1.1: {}", code.message())};
}

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

// An absolute target ("http://host/path", what proxies are sent) names its host once more.
void split_target(HttpRequest& request) {
  std::string_view rest = request.target;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!equals_ignoring_case(rest.substr(0, scheme.size()), scheme)) continue;
    rest.remove_prefix(scheme.size());
    const size_t end = std::min(rest.find_first_of("/?"), rest.size());
    // RFC 9112, 3.2.2: the target's host counts, whatever the header says.
    for (HttpHeader& header : request.headers) {
      if (equals_ignoring_case(header.name, "Host")) header.value = rest.substr(0, end);
    }
    rest.remove_prefix(end);
    break;
  }
  const size_t mark = std::min(rest.find('?'), rest.size());
  request.path = rest.substr(0, mark);
  if (request.path.empty()) request.path = "/";
  request.query = rest.substr(std::min(mark + 1, rest.size()));
}

}  // namespace

struct RequestParser::Parts {
  std::optional<beast_http::request_parser<beast_http::string_body>> parser;
};

RequestParser::RequestParser(const HttpLimits& limits)
    : limits_(limits), parts_(std::make_unique<Parts>()) {}
RequestParser::~RequestParser() = default;
RequestParser::RequestParser(RequestParser&&) noexcept = default;
RequestParser& RequestParser::operator=(RequestParser&&) noexcept = default;

bool RequestParser::is_idle() const {
  return held_.empty() && !has_head_;
}
bool RequestParser::has_head() const {
  return has_head_;
}
bool RequestParser::is_done() const {
  return is_done_;
}
const HttpRequest& RequestParser::head() const {
  return request_;
}
size_t RequestParser::held_bytes() const {
  return held_.size();
}

uint64_t RequestParser::body_bytes() const {
  return has_head_ && parts_->parser ? parts_->parser->get().body().size() : 0;
}

uint64_t RequestParser::announced_body_bytes() const {
  if (!has_head_ || !parts_->parser) return 0;
  const auto length = parts_->parser->content_length();
  return length ? *length : 0;
}

std::optional<HttpError> RequestParser::push(std::string_view bytes) {
  held_ += bytes;
  if (is_done_) return {};
  if (!has_head_) {
    if (auto error = push_head()) return error;
  }
  return has_head_ && !is_done_ ? push_body() : std::nullopt;
}

// Finds the end of the head, and refuses what no head may hold.
std::optional<HttpError> RequestParser::push_head() {
  if (scanned_ == 0) {  // RFC 9112, 2.2: empty lines before a request are skipped
    while (held_.starts_with("\r\n")) held_.erase(0, 2);
    if (held_ == "\r") return {};  // perhaps half of one
  }
  for (; scanned_ < held_.size(); ++scanned_) {
    const auto c = static_cast<unsigned char>(held_[scanned_]);
    const char before = scanned_ > 0 ? held_[scanned_ - 1] : '\0';
    if (scanned_ >= limits_.head_bytes) return HttpError{431, "the header is too large"};
    if (before == '\r' && c != '\n') return HttpError{400, "a carriage return without a line feed"};
    if (c == '\n' && before != '\r') return HttpError{400, "a line feed without a carriage return"};
    if ((c < 0x20 && c != '\r' && c != '\n' && c != '\t') || c == 0x7f) {
      return HttpError{400, "a control character in the header"};
    }
    if ((c == ' ' || c == '\t') && before == '\n') {
      return HttpError{400, "a header line that continues the one before is not accepted"};
    }
    if (c == '\n' && scanned_ >= 3 && held_.compare(scanned_ - 3, 4, "\r\n\r\n") == 0) {
      return read_head();
    }
  }
  return {};
}

std::optional<HttpError> RequestParser::read_head() {
  const size_t head_bytes = scanned_ + 1;
  scanned_ = 0;
  // The target ends at the second space of the first line.
  const size_t begin = held_.find(' ');
  const size_t end = begin == std::string::npos ? begin : held_.find_first_of(" \r", begin + 1);
  if (end != std::string::npos && end - begin - 1 > limits_.target_bytes) {
    return HttpError{414, fmt::format("the target is beyond {} bytes", limits_.target_bytes)};
  }
  auto& parser = parts_->parser.emplace();
  parser.header_limit(static_cast<uint32_t>(limits_.head_bytes + 1));
  parser.body_limit(limits_.body_bytes);
  parser.eager(false);
  boost::system::error_code code;
  size_t used = 0;
  while (used < head_bytes && !parser.is_header_done()) {
    const size_t now =
        parser.put(boost::asio::buffer(held_.data() + used, head_bytes - used), code);
    used += now;
    if (code && code != BeastError::need_more) return error_of(code);
    if (now == 0) return HttpError{400, "the header is malformed"};
  }
  held_.erase(0, head_bytes);
  const auto& message = parser.get();
  request_ = HttpRequest{};
  request_.method = view(message.method_string());
  request_.target = view(message.target());
  request_.is_http_1_0 = message.version() < 11;
  request_.keep_alive = message.keep_alive();
  for (const auto& field : message) {
    request_.headers.push_back(
        {std::string(view(field.name_string())), std::string(view(field.value()))});
  }
  split_target(request_);
  if (const std::string* expected = request_.find("Expect")) {
    if (!equals_ignoring_case(*expected, "100-continue")) {
      return HttpError{417, "only 100-continue can be expected"};
    }
    request_.expects_continue = true;
  }
  const bool measured = parser.chunked() || parser.content_length().has_value();
  if (!measured && (request_.method == "POST" || request_.method == "PUT")) {
    return HttpError{411, "a body needs Content-Length or chunked transfer coding"};
  }
  request_.has_body = parser.chunked() || announced_body_bytes() > 0 ||
                      (parser.content_length() && *parser.content_length() > 0);
  has_head_ = true;
  is_done_ = parser.is_done() || !request_.has_body;
  return {};
}

std::optional<HttpError> RequestParser::push_body() {
  auto& parser = *parts_->parser;
  size_t used = 0;
  while (used < held_.size() && !parser.is_done()) {
    boost::system::error_code code;
    const size_t now =
        parser.put(boost::asio::buffer(held_.data() + used, held_.size() - used), code);
    used += now;
    if (code == BeastError::need_more) break;
    if (code) return error_of(code);
    if (now == 0) break;
  }
  held_.erase(0, used);
  if (!parser.is_done() && held_.size() > kChunkLineMax) {
    return HttpError{400, "a chunk's line is too long"};
  }
  is_done_ = parser.is_done();
  return {};
}

HttpRequest RequestParser::take() {
  PENSTOCK_CHECK(is_done_);
  HttpRequest request = std::move(request_);
  request.body = std::move(parts_->parser->get().body());
  parts_->parser.reset();
  request_ = HttpRequest{};
  has_head_ = is_done_ = false;
  return request;
}

}  // namespace penstock
