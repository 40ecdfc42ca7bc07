#include "server/server.h"

#include <fmt/format.h>

#include "server/routes.h"

namespace penstock {
namespace {

// Adds what every answer of this request has, and remembers its status.
class WatchedExchange : public Exchange {
 public:
  WatchedExchange(Exchange& inner, std::vector<HttpHeader> headers)
      : inner_(inner), headers_(std::move(headers)) {}
  const HttpRequest& request() const override { return inner_.request(); }
  void respond(HttpResponse response) override {
    status_ = response.status;
    add_headers(response);
    inner_.respond(std::move(response));
  }
  void begin_stream(const HttpResponse& head) override {
    status_ = head.status;
    HttpResponse whole = head;
    add_headers(whole);
    inner_.begin_stream(whole);
  }
  bool write(std::string_view text) override { return inner_.write(text); }
  void end_stream() override { inner_.end_stream(); }
  std::stop_token gone() const override { return inner_.gone(); }
  int status() const { return status_; }

 private:
  void add_headers(HttpResponse& response) const {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
  }

  Exchange& inner_;
  std::vector<HttpHeader> headers_;
  int status_ = 0;
};

bool is_json(const HttpRequest& request) {
  const std::string* type = request.find("Content-Type");
  if (type == nullptr) return false;
  const std::string_view name = std::string_view(*type).substr(0, type->find(';'));
  const size_t end = name.find_last_not_of(" \t");
  return equals_ignoring_case(name.substr(0, end + 1), "application/json");
}

// What a log line may show of a path that anybody may have sent.
std::string printable_path(const HttpRequest& request) {
  std::string path = request.path.substr(0, 200);
  for (char& c : path) {
    if (c < 0x20 || c == 0x7f) c = '?';
  }
  return path;
}

}  // namespace

Server::Server(ServerOptions options) : options_(std::move(options)), access_(options_.access) {
  access_.set_keys(options_.keys);
}

Server::~Server() {
  if (http_ != nullptr) http_->stop();
}

Result<std::unique_ptr<Server>> Server::start(ServerOptions options) {
  const bool is_local = is_loopback_host(options.http.host);
  if (!is_local && options.keys.empty() && !options.is_open_knowingly) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--host {} can be reached by other machines; give --api-key or "
                             "--api-key-file, or --i-know to serve everybody",
                             options.http.host)};
  }
  options.access.checks_host = is_local && !options.http.host.ends_with(".sock");
  std::unique_ptr<Server> server(new Server(std::move(options)));
  server->http_ = PENSTOCK_TRY(HttpServer::start(server->options_.http, *server));
  server->listening_ = server->http_.get();
  return server;
}

void Server::set_loading(uint64_t done_bytes, uint64_t total_bytes) {
  loaded_bytes_ = done_bytes;
  load_bytes_ = total_bytes;
}

void Server::set_ready(const ServedModel* model, Generator* generator) {
  generator_ = generator;
  model_ = model;
}

void Server::drain() {
  draining_ = true;
  http_->drain();
  if (Generator* generator = generator_) generator->drain();
}

HttpResponse Server::error_response(const HttpRequest& head, const HttpError& error) {
  count(head.path.empty() ? "-" : "other", error.status, 0);
  return penstock::error_response(protocol_of(head.path), api_error(error));
}

bool Server::is_quick(const HttpRequest& head) const {
  bool knows_path = false;
  const Route* route = find_route(head.method, head.path, knows_path);
  return route != nullptr && route->is_quick;
}

std::optional<HttpResponse> Server::check_head(const HttpRequest& head) {
  const auto refuse = [&](const HttpError& error, std::vector<HttpHeader> headers = {}) {
    HttpResponse response = error_response(head, error);
    for (HttpHeader& header : headers) response.headers.push_back(std::move(header));
    for (HttpHeader& header : access_.cors_headers(head)) {
      response.headers.push_back(std::move(header));
    }
    return response;
  };
  if (const auto error = Access::check_form(head)) return refuse(*error);
  bool knows_path = false;
  const Route* route = find_route(head.method, head.path, knows_path);
  if (head.method == "OPTIONS") {  // a browser asks before it sends, and has no key then
    if (const auto error = access_.check_origin(head)) return refuse(*error);
    HttpResponse response;
    response.status = 204;
    response.content_type = "";
    response.headers = access_.cors_headers(head);
    response.headers.push_back({"Allow", allowed_methods(head.path)});
    return response;
  }
  if (route == nullptr || !route->is_public) {
    if (const auto error = access_.check_key(head)) return refuse(*error);
  }
  if (const auto error = access_.check_origin(head)) return refuse(*error);
  if (draining_ && (route == nullptr || route->needs_model)) {
    return refuse({503, "the server is shutting down"});
  }
  if (route == nullptr && knows_path) {
    return refuse({405, fmt::format("{} is not what this path takes", head.method)},
                  {{"Allow", allowed_methods(head.path)}});
  }
  if (route == nullptr) return refuse({404, "there is no such path; /openapi.json lists them"});
  if (head.find("Content-Encoding") != nullptr) {
    return refuse({415, "a body with Content-Encoding is not accepted"});
  }
  if (head.method == "POST" && !is_json(head)) {
    return refuse({415, "the Content-Type must be application/json"});
  }
  return {};
}

void Server::handle(Exchange& raw) {
  const auto start = std::chrono::steady_clock::now();
  const HttpRequest& request = raw.request();
  WatchedExchange exchange(raw, access_.cors_headers(request));
  bool knows_path = false;
  const Route* route = find_route(request.method, request.path, knows_path);
  const std::string line = fmt::format("{} {}", request.method, printable_path(request));
  const ServedModel* model = model_;
  if (route == nullptr) {
    exchange.respond(error_response(request, {404, "there is no such path"}));
  } else if (route->needs_model && model == nullptr) {
    exchange.respond(error_response(request, {503, "the model is being loaded; see /health"}));
  } else {
    RouteContext context{*this, exchange, model, generator_};
    route->answer(context);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  count(route == nullptr ? "other" : route->path, exchange.status(), seconds.count());
  if (options_.log) {
    options_.log(fmt::format("{} {} {:.3f} s", line, exchange.status(), seconds.count()));
  }
}

void Server::count(std::string_view route, int status, double) {
  const std::scoped_lock lock(mutex_);
  ++requests_[{std::string(route), status}];
}

HttpResponse Server::health() const {
  HttpResponse response;
  const auto unwell = [&](const std::string& message, const Json& more) {
    response.status = 503;
    Json body = error_json(Protocol::kOpenAi, {.status = 503, .message = message});
    body.update(more);
    response.body = to_text(body);
  };
  const Generator* generator = generator_;
  if (draining_) {
    unwell("the server is shutting down", Json{{"status", "draining"}});
  } else if (model_ == nullptr || generator == nullptr) {
    const auto done = static_cast<double>(loaded_bytes_.load());
    const auto total = static_cast<double>(load_bytes_.load());
    unwell("Loading model", Json{{"status", "loading model"},
                                 {"loaded_bytes", loaded_bytes_.load()},
                                 {"total_bytes", load_bytes_.load()},
                                 {"progress", total == 0 ? 0 : done / total}});
  } else if (const std::string fault = generator->figures().storage_fault; !fault.empty()) {
    unwell("storage: " + fault, Json{{"status", "storage fault"}});
  } else {
    response.body = R"({"status":"ok"})";
  }
  return response;
}

}  // namespace penstock
