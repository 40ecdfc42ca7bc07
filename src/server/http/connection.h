// One connection: reads requests, hands each to the handler, writes answers in order.
//
// Invariants
//   (1) All members are of the sockets' thread, but for what mutex_ guards: the outbox, through
//       which a worker hands over its answer. The request in work belongs to its ConnectionExchange.
//   (2) One request is handled at a time; what was pipelined behind it waits unparsed, bounded.
//   (3) While the handler works one read is pending, so a client that goes away is noticed.
//   (4) After an error the answer is followed by a lingering close: what the client still sends is
//       read and dropped for a second, or a reset could destroy the answer on its way.
//
// Threads  the sockets' thread; send() and wait_for_room() from the worker of the request in work
// Memory   see http/server.h
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>

#include "server/http/server.h"
#include "server/http/worker_pool.h"

namespace penstock {

// What connections share with their server.
struct ConnectionContext {
  boost::asio::io_context& io;
  const HttpOptions& options;
  HttpHandler& handler;
  WorkerPool& workers;
  std::atomic<bool>& draining;
  std::atomic<int>& handling;        // requests in work
  std::atomic<int64_t>& body_bytes;  // of all connections
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  using Clock = std::chrono::steady_clock;

  // is_over_limit: only what is quick is answered, and soon, or else 503.
  Connection(ConnectionContext context, Socket socket, bool is_over_limit);
  ~Connection();

  void start();
  void tick(Clock::time_point now);  // every quarter of a second
  void close();
  bool is_closed() const { return phase_ == Phase::kClosed; }
  bool is_over_limit() const { return is_over_limit_; }
  bool is_settled() const;  // nothing is being handled or written
  void close_if_idle();     // between two requests, and nothing of the next has come

  // From any thread: what an answer is made of, in order.
  enum class After { kMore, kNextRequest, kClose };
  void send(std::string text, After after);
  bool wait_for_room();  // false: the client is gone, or took nothing for too long
  void give_up();        // closes soon, from any thread
  const ConnectionContext& context() const { return context_; }

 private:
  enum class Phase { kReading, kHandling, kLingering, kClosed };

  void read();
  void take_in(size_t bytes);
  void advance();
  void look_at_head();
  void begin_work();
  void handle_request();
  void answer_error(const HttpError& error);
  void send_and_linger(const HttpResponse& response, const HttpRequest& head);
  void flush();
  void finish_answer(After after);
  void linger();
  void check_patience(Clock::time_point now);
  void count_body();
  void forget_body();

  ConnectionContext context_;
  Socket socket_;
  RequestParser parser_;
  Phase phase_ = Phase::kReading;
  bool is_over_limit_;
  bool is_reading_ = false, is_writing_ = false, end_of_input_ = false;
  bool head_seen_ = false;     // and found acceptable
  bool has_answered_ = false;  // some request of this connection
  bool linger_after_ = false;
  std::array<char, 16 << 10> buffer_;
  std::string pipelined_;  // came while a request was in work
  int64_t counted_body_ = 0;
  size_t lingered_ = 0;
  Clock::time_point phase_began_, head_came_, last_written_;
  std::string on_its_way_;

  std::stop_source gone_;

  std::mutex mutex_;
  std::condition_variable drained_;
  std::string outbox_;          // guarded by mutex_
  After after_ = After::kMore;  // guarded by mutex_: what follows the outbox
  bool is_dead_ = false;        // guarded by mutex_
  bool flush_posted_ = false;   // guarded by mutex_
};

}  // namespace penstock
