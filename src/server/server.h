// The server: routes, who may use them, and the state of the model behind them.
//
// It listens before the model is loaded, so that /health can tell how far loading is; everything
// that needs the model is 503 until set_ready(). It ends in two steps: drain() lets answers end and
// refuses everything new, stop() ends them at once with an error event.
//
//   auto server = PENSTOCK_TRY(Server::start(options));
//   ... load, server->set_loading(done, total) ...
//   server->set_ready(&model, &generator);
//   generator.run(stop);
//   server->drain(); server->wait_idle(...); server->stop();
//
// Threads  start() and the rest from one thread; requests are handled on the server's own
// Errors   start(): kInvalidArgument, when the address cannot be listened at or is open to others
//          without a key
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/api/reply.h"
#include "server/http/access.h"
#include "server/http/server.h"

namespace penstock {

struct ServerOptions {
  HttpOptions http;
  AccessOptions access;
  std::vector<std::string> keys;
  bool is_open_knowingly = false;  // --i-know: no key although others can reach it
  bool has_page = true;
  std::string version;
  std::function<void(const std::string&)> log;  // a line per request; may be absent; many threads
};

class Server : public HttpHandler {
 public:
  static Result<std::unique_ptr<Server>> start(ServerOptions options);
  ~Server() override;

  void set_loading(uint64_t done_bytes, uint64_t total_bytes);
  // Both outlive the server's stop().
  void set_ready(const ServedModel* model, Generator* generator);
  void set_keys(std::vector<std::string> keys) { access_.set_keys(std::move(keys)); }

  std::string address() const { return http_->address(); }
  int port() const { return http_->port(); }

  void drain();
  bool wait_idle(std::chrono::milliseconds limit) { return http_->wait_idle(limit); }
  void stop() { http_->stop(); }

  std::optional<HttpResponse> check_head(const HttpRequest& head) override;
  bool is_quick(const HttpRequest& head) const override;
  void handle(Exchange& exchange) override;
  HttpResponse error_response(const HttpRequest& head, const HttpError& error) override;

 private:
  friend struct Routes;
  explicit Server(ServerOptions options);

  HttpResponse health() const;
  std::string metrics() const;
  void count(std::string_view route, int status, double seconds);

  ServerOptions options_;
  Access access_;
  std::atomic<const ServedModel*> model_{nullptr};
  std::atomic<Generator*> generator_{nullptr};
  std::atomic<bool> draining_{false};
  std::atomic<uint64_t> loaded_bytes_{0}, load_bytes_{0};
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> requests_;  // guarded by mutex_: route, status
  std::atomic<const HttpServer*> listening_{nullptr};  // once it is there: requests may be before
  std::unique_ptr<HttpServer> http_;
};

}  // namespace penstock
