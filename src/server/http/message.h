// A request and an answer of HTTP/1.1, as plain values: what handlers see of the network.
//
// Threads  values
// Errors   HttpError: a status and a sentence, for whoever speaks the protocol to shape
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock {

struct HttpHeader {
  std::string name, value;
};

struct HttpError {
  int status;
  std::string message;
};

struct HttpRequest {
  std::string method;  // "GET"
  std::string target;  // as sent, at most HttpLimits::target_bytes
  std::string path;    // of target, before '?', not percent-decoded
  std::string query;   // behind it
  std::vector<HttpHeader> headers;
  std::string body;
  bool keep_alive = true;
  bool is_http_1_0 = false;
  bool expects_continue = false;
  bool has_body = false;  // announced by Content-Length above 0, or chunked

  // Names are compared without case. The first one, or nullptr.
  const std::string* find(std::string_view name) const;
  int count(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<HttpHeader> headers;
  bool closes = false;  // the connection ends with it
};

std::string_view reason_phrase(int status);  // "Not Found"

// Letters of ASCII only, as header names have them.
bool equals_ignoring_case(std::string_view a, std::string_view b);

// "%2F" to "/"; nothing when a % is not followed by two hex digits.
bool percent_decode(std::string_view text, std::string& decoded);

// Status line and headers, with those that every answer has. content_length < 0: chunked, or for
// HTTP/1.0 until the connection ends.
std::string response_head(const HttpResponse& response, const HttpRequest& request,
                          long long content_length, bool keeps_alive);

}  // namespace penstock
