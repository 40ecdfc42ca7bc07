// Who may ask: names of this machine, origins of web pages, API keys.
//
// A page of any web site can make a browser send requests to 127.0.0.1, and can make its own name
// resolve to it. So on loopback the Host must be a name of this machine, a foreign Origin is
// refused, and no CORS header is sent unless an origin was allowed.
//
// Threads  const functions from any thread; set_keys() beside them
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "server/http/message.h"

namespace penstock {

struct AccessOptions {
  bool checks_host = true;                 // false: not on loopback, or on a unix socket
  std::vector<std::string> allowed_hosts;  // beside localhost, loopback addresses, the machine
  std::vector<std::string> cors_origins;   // "https://chat.example", or "*"
};

class Access {
 public:
  explicit Access(AccessOptions options);

  // No keys: everybody may ask.
  void set_keys(std::vector<std::string> keys);
  bool needs_key() const;

  // Exactly one Host: 400 otherwise, before anything else is looked at.
  static std::optional<HttpError> check_form(const HttpRequest& request);
  // Authorization: Bearer KEY, or X-Api-Key: KEY. One right key suffices. 401.
  std::optional<HttpError> check_key(const HttpRequest& request) const;
  // Host and Origin. 403.
  std::optional<HttpError> check_origin(const HttpRequest& request) const;
  // Headers that let the page of an allowed origin read the answer; none for all others.
  std::vector<HttpHeader> cors_headers(const HttpRequest& request) const;

 private:
  bool is_allowed_host(const std::string& host) const;
  bool is_allowed_origin(const std::string& origin) const;

  AccessOptions options_;
  mutable std::mutex mutex_;
  std::vector<std::string> keys_;  // guarded by mutex_
};

// The time depends on the length of `given` alone.
bool equals_in_constant_time(std::string_view given, std::string_view secret);

// A Host or authority without its port: "[::1]:8080" to "[::1]".
std::string host_without_port(std::string_view authority);

// The lines of a file of keys; empty ones and those that begin with # are left out.
std::vector<std::string> keys_of(std::string_view text);

}  // namespace penstock
