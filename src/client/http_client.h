// One request to a server of HTTP, its answer as it comes: a connection for each, no redirects, no
// proxies, no cookies.
//
//   auto answer = PENSTOCK_TRY(ask_server(url, {"POST", "/chat/completions", headers, body}, on_body, stop));
//
// Threads  the calling one waits; `stop` from any thread ends the wait within a twentieth of a second
// Memory   the request, 16 KiB of the answer at a time
// Errors   kIo in words for a person: no such machine, nothing listens, silence, not HTTP; those of
//          on_body; kCancelled
#pragma once

#include <chrono>
#include <functional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "client/http_response.h"
#include "client/server_url.h"

namespace penstock {

struct ClientRequest {
  std::string method;
  std::string path;  // behind the url's base
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};  // JSON; empty: none
};

struct ClientPatience {
  std::chrono::milliseconds connect{10'000};
  // Between two pieces of the answer. Servers send heartbeats, but not all do, and a long prompt takes
  // a streaming engine many minutes.
  std::chrono::milliseconds silence{1'800'000};
};

// A piece of the body; the head is known by then.
using OnBody = std::function<Result<void>(const ResponseReader& head, std::string_view piece)>;

struct ClientAnswer {
  int status = 0;
  std::string retry_after;  // seconds, as the server says
};

Result<ClientAnswer> ask_server(const ServerUrl& url, const ClientRequest& request,
                                const OnBody& on_body, const std::stop_token& stop,
                                const ClientPatience& patience = {});

}  // namespace penstock
