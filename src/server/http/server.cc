#include "server/http/server.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <latch>
#include <list>
#include <map>
#include <thread>

#include "server/http/connection.h"

namespace penstock {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

constexpr int kListenBacklog = 1024;
// Over the limit a connection lives for a tenth of a second; so many may do so at once.
constexpr size_t kOverLimitMax = 1024;

bool is_socket_path(const std::string& host) {
  return host.ends_with(".sock");
}

Error cannot_listen(const std::string& where, const boost::system::error_code& code) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("cannot listen at {}: {}", where, code.message())};
}

// A socket file that nobody answers at is what a killed server left behind.
bool is_stale(asio::io_context& io, const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) return false;
  asio::local::stream_protocol::socket probe(io);
  boost::system::error_code code;
  probe.connect(asio::local::stream_protocol::endpoint(path), code);
  return code == asio::error::connection_refused;
}

}  // namespace

bool is_loopback_host(const std::string& host) {
  if (is_socket_path(host) || host == "localhost") return true;
  boost::system::error_code code;
  const auto address = asio::ip::make_address(host, code);
  return !code && address.is_loopback();
}

class HttpServer::Core {
 public:
  Core(const HttpOptions& options, HttpHandler& handler)
      : options_(options),
        handler_(handler),
        tcp_(io_),
        local_(io_),
        timer_(io_),
        work_(asio::make_work_guard(io_)) {}

  Result<void> listen() { return is_socket_path(options_.host) ? listen_local() : listen_tcp(); }

  void start() {
    workers_ = std::make_unique<WorkerPool>(options_.workers);
    if (tcp_.is_open()) accept(tcp_);
    if (local_.is_open()) accept(local_);
    tick();
    thread_ = std::jthread([this] { io_.run(); });
  }

  void drain() {
    draining_ = true;
    asio::post(io_, [this] {
      for (const Guest& guest : guests_) guest.connection->close_if_idle();
    });
  }

  bool wait_idle(std::chrono::milliseconds limit) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (handling_ > 0) {
      if (std::chrono::steady_clock::now() >= end) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }

  void stop() {
    if (!thread_.joinable()) return;
    draining_ = true;
    std::latch closed(1);
    asio::post(io_, [this, &closed] {
      boost::system::error_code ignored;
      tcp_.close(ignored);
      local_.close(ignored);
      stopping_ = true;
      for (const Guest& guest : guests_) guest.connection->close();
      closed.count_down();
    });
    closed.wait();     // from here on nothing is posted to the workers
    workers_.reset();  // handlers see that their clients are gone
    asio::post(io_, [this] {
      timer_.cancel();
      guests_.clear();
      work_.reset();
    });
    thread_.join();
    if (!bound_path_.empty()) ::unlink(bound_path_.c_str());
  }

  HttpFigures figures() const { return {open_, handling_, refused_}; }
  bool is_draining() const { return draining_; }
  int port() const { return port_; }
  std::string address() const {
    if (!bound_path_.empty()) return "unix:" + bound_path_;
    const bool is_v6 = options_.host.find(':') != std::string::npos;
    if (is_v6) return fmt::format("http://[{}]:{}", options_.host, port_);
    return fmt::format("http://{}:{}", options_.host, port_);
  }
  bool is_loopback() const { return is_loopback_; }

 private:
  struct Guest {
    std::shared_ptr<Connection> connection;  // shared with its operations under way
    asio::ip::address from;
  };

  Result<void> listen_tcp() {
    const std::string where = fmt::format("{}:{}", options_.host, options_.port);
    boost::system::error_code code;
    asio::ip::tcp::resolver resolver(io_);
    const auto found = resolver.resolve(options_.host, std::to_string(options_.port),
                                        asio::ip::tcp::resolver::passive, code);
    if (code || found.empty()) return cannot_listen(where, code);
    const asio::ip::tcp::endpoint endpoint = found.begin()->endpoint();
    is_loopback_ = endpoint.address().is_loopback();
    tcp_.open(endpoint.protocol(), code);
    if (!code) tcp_.set_option(asio::socket_base::reuse_address(true), code);
    if (!code) tcp_.bind(endpoint, code);
    if (!code) tcp_.listen(kListenBacklog, code);
    if (code) return cannot_listen(where, code);
    port_ = tcp_.local_endpoint().port();
    return {};
  }

  Result<void> listen_local() {
    const std::string& path = options_.host;
    if (is_stale(io_, path)) ::unlink(path.c_str());
    boost::system::error_code code;
    try {
      const asio::local::stream_protocol::endpoint endpoint(path);  // throws when it is too long
      local_.open(endpoint.protocol(), code);
      if (!code) local_.bind(endpoint, code);
    } catch (const boost::system::system_error& error) {
      code = error.code();
    }
    if (!code) {
      bound_path_ = path;
      ::chmod(path.c_str(), 0600);
      local_.listen(kListenBacklog, code);
    }
    if (code) return cannot_listen(path, code);
    is_loopback_ = true;
    return {};
  }

  template <class Acceptor>
  void accept(Acceptor& acceptor) {
    acceptor.async_accept([this, &acceptor](boost::system::error_code code, auto socket) {
      if (stopping_ || code == asio::error::operation_aborted) return;
      if (code) {  // no descriptors left: the next try waits for the next tick
        accept_again_ = [this, &acceptor] { accept(acceptor); };
        return;
      }
      asio::ip::address from;  // none of a unix socket
      if constexpr (std::is_same_v<decltype(socket), asio::ip::tcp::socket>) {
        boost::system::error_code ignored;
        socket.set_option(asio::ip::tcp::no_delay(true), ignored);
        from = socket.remote_endpoint(ignored).address();
      }
      add(Connection::Socket(std::move(socket)), from);
      accept(acceptor);
    });
  }

  bool is_counted(const asio::ip::address& from) const {
    return !from.is_unspecified() && (options_.counts_loopback || !from.is_loopback());
  }

  void add(Connection::Socket socket, const asio::ip::address& from) {
    forget_closed();
    const bool is_over = open_ >= options_.max_connections ||
                         (is_counted(from) && open_by_[from] >= options_.max_per_address);
    if (is_over) ++refused_;
    if (guests_.size() >= static_cast<size_t>(options_.max_connections) + kOverLimitMax) return;
    const ConnectionContext context{io_,       options_,  handler_,   *workers_,
                                    draining_, handling_, body_bytes_};
    guests_.push_back({std::make_shared<Connection>(context, std::move(socket), is_over), from});
    if (!is_over) ++open_;
    if (!is_over && is_counted(from)) ++open_by_[from];
    guests_.back().connection->start();
  }

  void forget_closed() {
    guests_.remove_if([this](const Guest& guest) {
      if (!guest.connection->is_closed()) return false;
      if (guest.connection->is_over_limit()) return true;
      --open_;
      if (is_counted(guest.from)) --open_by_[guest.from];
      return true;
    });
    std::erase_if(open_by_, [](const auto& count) { return count.second == 0; });
  }

  void tick() {
    timer_.expires_after(50ms);
    timer_.async_wait([this](boost::system::error_code code) {
      if (code || stopping_) return;
      const auto now = Connection::Clock::now();
      for (const Guest& guest : guests_) guest.connection->tick(now);
      forget_closed();
      if (accept_again_) std::exchange(accept_again_, nullptr)();
      tick();
    });
  }

  const HttpOptions options_;
  HttpHandler& handler_;
  asio::io_context io_{1};
  asio::ip::tcp::acceptor tcp_;
  asio::local::stream_protocol::acceptor local_;
  asio::steady_timer timer_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::unique_ptr<WorkerPool> workers_;
  std::list<Guest> guests_;
  std::map<asio::ip::address, int> open_by_;  // connections of an address, where it is counted
  std::function<void()> accept_again_;
  std::string bound_path_;
  int port_ = 0;
  bool is_loopback_ = false, stopping_ = false;
  std::atomic<bool> draining_{false};
  std::atomic<int> open_{0}, handling_{0};
  std::atomic<uint64_t> refused_{0};
  std::atomic<int64_t> body_bytes_{0};
  std::jthread thread_;
};

HttpServer::HttpServer(std::unique_ptr<Core> core) : core_(std::move(core)) {}
HttpServer::~HttpServer() {
  stop();
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpOptions& options,
                                                      HttpHandler& handler) {
  auto core = std::make_unique<Core>(options, handler);
  PENSTOCK_TRY(core->listen());
  core->start();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(core)));
}

int HttpServer::port() const {
  return core_->port();
}
std::string HttpServer::address() const {
  return core_->address();
}
bool HttpServer::is_loopback() const {
  return core_->is_loopback();
}
void HttpServer::drain() {
  core_->drain();
}
bool HttpServer::is_draining() const {
  return core_->is_draining();
}
bool HttpServer::wait_idle(std::chrono::milliseconds limit) {
  return core_->wait_idle(limit);
}
void HttpServer::stop() {
  core_->stop();
}
HttpFigures HttpServer::figures() const {
  return core_->figures();
}

}  // namespace penstock
