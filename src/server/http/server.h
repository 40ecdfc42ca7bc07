// HTTP/1.1 on a TCP port or a unix socket: connections, limits, timeouts; nothing of what is said.
//
// Sockets are asynchronous and belong to one thread, so thousands of slow or silent clients cost a
// few kilobytes each and no thread. A whole request is handed to one of a fixed number of workers,
// where a handler may compute and wait in plain linear code; what is quick is answered by the
// socket's thread itself, so that health and metrics wait behind nobody. While a handler works, its
// socket is still read: a client that goes away stops Exchange::gone() at once.
//
//   auto server = PENSTOCK_TRY(HttpServer::start(options, handler));
//   server->drain();             // new connections and requests get 503, running ones end
//   server->wait_idle(limit);
//   server->stop();              // also in the destructor
//
// Threads  start() makes one thread for the sockets and options.workers for handlers; stop() joins
//          them. Handler is called from all of them at once.
// Memory   a head, a body and 1 MiB of answer that was not taken yet, each per connection; bodies of
//          all connections together at most body_bytes_in_all, beyond it 503
// Errors   start(): kInvalidArgument when the address cannot be listened at
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "base/result.h"
#include "server/http/request_parser.h"

namespace penstock {

struct HttpOptions {
  std::string host =
      "127.0.0.1";            // an address or a name; a path that ends with .sock: a unix socket
  int port = 8080;            // 0: any free one
  int max_connections = 256;  // beyond it 503, but for what is quick
  // Of these, so many by one address; those of this machine only where it counts_loopback.
  int max_per_address = 64;
  bool counts_loopback = false;
  int workers = 16;
  HttpLimits limits;
  uint64_t body_bytes_in_all = 64 << 20;
  std::chrono::milliseconds head_timeout{10'000};
  std::chrono::milliseconds idle_timeout{75'000};
  std::chrono::milliseconds write_timeout{60'000};  // without any progress of a full outbox
  int64_t body_rate_min = 1024;                     // bytes a second,
  std::chrono::milliseconds body_grace{10'000};     // after so long
};

// One request and its answer. Used by one thread at a time.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const HttpRequest& request() const = 0;

  // The whole answer.
  virtual void respond(HttpResponse response) = 0;

  // Or piece by piece. write() waits while the client is slow; false: it is gone.
  virtual void begin_stream(const HttpResponse& head) = 0;
  virtual bool write(std::string_view text) = 0;
  virtual void end_stream() = 0;

  // Stopped when the client has gone, or when the server stops.
  virtual std::stop_token gone() const = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Looked at before the body is read; an answer ends the request.
  virtual std::optional<HttpResponse> check_head(const HttpRequest& head) = 0;
  // Answered without a worker: must not wait for anything.
  virtual bool is_quick(const HttpRequest& head) const = 0;
  virtual void handle(Exchange& exchange) = 0;
  // The body of an answer that says what was wrong with a request; `head` may be empty.
  virtual HttpResponse error_response(const HttpRequest& head, const HttpError& error) = 0;
};

struct HttpFigures {
  int connections = 0;
  int handling = 0;
  uint64_t refused = 0;  // over max_connections or max_per_address
};

class HttpServer {
 public:
  // `handler` outlives the server.
  static Result<std::unique_ptr<HttpServer>> start(const HttpOptions& options,
                                                   HttpHandler& handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;             // that is listened at; 0 for a unix socket
  std::string address() const;  // "http://127.0.0.1:8080"
  bool is_loopback() const;     // also a unix socket

  void drain();
  bool is_draining() const;
  // No request is being handled and every answer was taken; false when `limit` came first.
  bool wait_idle(std::chrono::milliseconds limit);
  void stop();
  HttpFigures figures() const;

 private:
  class Core;
  explicit HttpServer(std::unique_ptr<Core> core);
  std::unique_ptr<Core> core_;
};

// Whether this address is reached from this machine alone.
bool is_loopback_host(const std::string& host);

}  // namespace penstock
