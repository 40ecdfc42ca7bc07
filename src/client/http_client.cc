#include "client/http_client.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>

namespace penstock {
namespace {

namespace asio = boost::asio;
using Socket = asio::generic::stream_protocol::socket;
using Endpoint = asio::generic::stream_protocol::endpoint;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kStep(50);  // how often `stop` is looked at

// A connection, used in plain waiting calls that can be interrupted.
class Wire {
 public:
  Wire(const ServerUrl& url, const std::stop_token& stop) : url_(url), stop_(stop) {}
  ~Wire() { close(); }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  Result<void> connect(std::chrono::milliseconds patience);
  Result<void> write(std::string_view text, std::chrono::milliseconds patience);
  // Empty: the server has ended the connection.
  Result<std::string_view> read(std::chrono::milliseconds patience);

 private:
  Result<std::vector<Endpoint>> endpoints();
  Result<void> finish(std::chrono::milliseconds patience);
  std::string place() const;
  void close();

  const ServerUrl& url_;
  const std::stop_token& stop_;
  asio::io_context io_;
  Socket socket_{io_};
  std::array<char, 16 << 10> buffer_;
  bool done_ = false;
  boost::system::error_code code_;  // of what was done
  size_t bytes_ = 0;
};

std::string Wire::place() const {
  return url_.socket_path.empty() ? "http://" + url_.authority() : url_.socket_path;
}

// What is under way may still refer to the buffer: it ends before that does.
void Wire::close() {
  boost::system::error_code ignored;
  socket_.close(ignored);
  io_.restart();
  io_.run();
}

// Waits for what was begun.
Result<void> Wire::finish(std::chrono::milliseconds patience) {
  const Clock::time_point end = Clock::now() + patience;
  for (;;) {
    // Looked at also while pieces come so fast that nothing is ever waited for.
    const bool is_stopped = stop_.stop_requested();
    if (done_ && !is_stopped) break;
    if (!is_stopped && Clock::now() < end) {
      io_.restart();
      io_.run_for(kStep);
      continue;
    }
    close();
    if (is_stopped) return Error{ErrorCode::kCancelled, "interrupted"};
    return Error{ErrorCode::kIo,
                 fmt::format("{} does not answer: nothing came for {} s", place(),
                             std::chrono::duration_cast<std::chrono::seconds>(patience).count())};
  }
  done_ = false;
  return {};
}

Result<std::vector<Endpoint>> Wire::endpoints() {
  std::vector<Endpoint> found;
  if (!url_.socket_path.empty()) {
    constexpr size_t kPathMax = 100;  // what the system's address has room for
    if (url_.socket_path.size() > kPathMax) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: the path of a socket is longer than {} bytes", url_.socket_path,
                               kPathMax)};
    }
    found.emplace_back(asio::local::stream_protocol::endpoint(url_.socket_path));
    return found;
  }
  asio::ip::tcp::resolver resolver(io_);
  boost::system::error_code code;
  for (const auto& entry : resolver.resolve(url_.host, url_.port, code)) {
    found.emplace_back(entry.endpoint());
  }
  if (!found.empty()) return found;
  return Error{ErrorCode::kIo, fmt::format("there is no machine \"{}\" to be found ({})", url_.host,
                                           code.message())};
}

Result<void> Wire::connect(std::chrono::milliseconds patience) {
  for (const Endpoint& endpoint : PENSTOCK_TRY(endpoints())) {
    socket_ = Socket(io_);
    socket_.async_connect(endpoint, [this](const boost::system::error_code& code) {
      code_ = code;
      done_ = true;
    });
    PENSTOCK_TRY(finish(patience));
    if (!code_) return {};
  }
  if (code_ == asio::error::connection_refused || code_.value() == ENOENT) {
    return Error{ErrorCode::kIo,
                 fmt::format("nothing listens at {}; is the server running there?", place())};
  }
  return Error{ErrorCode::kIo, fmt::format("{} cannot be reached: {}", place(), code_.message())};
}

Result<void> Wire::write(std::string_view text, std::chrono::milliseconds patience) {
  asio::async_write(socket_, asio::buffer(text.data(), text.size()),
                    [this](const boost::system::error_code& code, size_t) {
                      code_ = code;
                      done_ = true;
                    });
  PENSTOCK_TRY(finish(patience));
  // A server that refuses early closes while the rest is sent; its answer says why.
  return {};
}

Result<std::string_view> Wire::read(std::chrono::milliseconds patience) {
  socket_.async_read_some(asio::buffer(buffer_),
                          [this](const boost::system::error_code& code, size_t bytes) {
                            code_ = code;
                            bytes_ = bytes;
                            done_ = true;
                          });
  PENSTOCK_TRY(finish(patience));
  if (!code_) return std::string_view(buffer_.data(), bytes_);
  if (code_ == asio::error::eof) return std::string_view();
  return Error{ErrorCode::kIo,
               fmt::format("the connection to {} broke: {}", place(), code_.message())};
}

std::string text_of(const ServerUrl& url, const ClientRequest& request) {
  std::string text = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
                                 request.method, url.base, request.path, url.authority());
  for (const auto& [name, value] : request.headers) text += fmt::format("{}: {}\r\n", name, value);
  if (!request.body.empty()) {
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n",
                        request.body.size());
  }
  return text + "\r\n" + request.body;
}

}  // namespace

Result<ClientAnswer> ask_server(const ServerUrl& url, const ClientRequest& request,
                                const OnBody& on_body, const std::stop_token& stop,
                                const ClientPatience& patience) {
  const std::string text = text_of(url, request);  // outlives the wire
  Wire wire(url, stop);
  PENSTOCK_TRY(wire.connect(patience.connect));
  PENSTOCK_TRY(wire.write(text, patience.silence));
  ResponseReader reader;
  while (!reader.is_done()) {
    const std::string_view bytes = PENSTOCK_TRY(wire.read(patience.silence));
    std::string body;
    if (bytes.empty()) {
      PENSTOCK_TRY(reader.finish(body));
    } else {
      PENSTOCK_TRY(reader.push(bytes, body));
    }
    if (!body.empty()) PENSTOCK_TRY(on_body(reader, body));
    if (bytes.empty()) break;
  }
  return ClientAnswer{reader.status(), reader.header("Retry-After")};
}

}  // namespace penstock
