#include "server/http/connection.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>

#include "base/check.h"

namespace penstock {
namespace {

using namespace std::chrono_literals;

constexpr size_t kOutboxMax = 1 << 20;
constexpr size_t kPipelinedMax = 64 << 10;  // of what comes while a request is handled
constexpr size_t kLingerBytesMax = 64 << 10;
constexpr auto kLingerTime = 1s;
constexpr auto kOverLimitTime = 100ms;

// The request in work, and the way back to its connection.
class ConnectionExchange : public Exchange {
 public:
  ConnectionExchange(std::shared_ptr<Connection> connection, HttpRequest request,
                     std::stop_token gone)
      : connection_(std::move(connection)), request_(std::move(request)), gone_(std::move(gone)) {}

  const HttpRequest& request() const override { return request_; }
  std::stop_token gone() const override { return gone_; }

  void respond(HttpResponse response) override {
    PENSTOCK_CHECK(!answered_);
    answered_ = true;
    const bool keeps = keeps_alive(response);
    const bool has_no_body = response.status == 204;
    if (has_no_body) response.body.clear();
    std::string text =
        response_head(response, request_, static_cast<long long>(response.body.size()), keeps);
    if (request_.method != "HEAD") text += response.body;
    connection_->send(std::move(text), after(keeps));
  }

  void begin_stream(const HttpResponse& head) override {
    PENSTOCK_CHECK(!answered_);
    answered_ = streams_ = true;
    chunks_ = !request_.is_http_1_0;
    keeps_ = chunks_ && keeps_alive(head);
    connection_->send(response_head(head, request_, -1, keeps_), Connection::After::kMore);
  }

  bool write(std::string_view text) override {
    PENSTOCK_CHECK(streams_);
    if (text.empty() || request_.method == "HEAD") return !gone_.stop_requested();
    connection_->send(
        chunks_ ? fmt::format("{:x}\r\n{}\r\n", text.size(), text) : std::string(text),
        Connection::After::kMore);
    if (connection_->wait_for_room()) return !gone_.stop_requested();
    connection_->give_up();
    return false;
  }

  void end_stream() override {
    PENSTOCK_CHECK(streams_);
    streams_ = false;
    const bool has_end = chunks_ && request_.method != "HEAD";
    connection_->send(has_end ? "0\r\n\r\n" : "", after(keeps_));
  }

  // One door for exceptions: of libraries, of memory that ran out.
  void run(HttpHandler& handler) {
    std::string reason = "the request was not answered";
    try {
      handler.handle(*this);
    } catch (const std::exception& exception) {
      reason = fmt::format("internal error: {}", exception.what());
    }
    if (streams_) connection_->send("", Connection::After::kClose);
    if (!answered_) respond(handler.error_response(request_, {500, reason}));
  }

 private:
  bool keeps_alive(const HttpResponse& response) const {
    return request_.keep_alive && !response.closes && !connection_->context().draining;
  }
  static Connection::After after(bool keeps) {
    return keeps ? Connection::After::kNextRequest : Connection::After::kClose;
  }

  std::shared_ptr<Connection> connection_;
  HttpRequest request_;
  std::stop_token gone_;
  bool answered_ = false, streams_ = false, chunks_ = false, keeps_ = false;
};

}  // namespace

Connection::Connection(ConnectionContext context, Socket socket, bool is_over_limit)
    : context_(context),
      socket_(std::move(socket)),
      parser_(context.options.limits),
      is_over_limit_(is_over_limit),
      phase_began_(Clock::now()),
      last_written_(phase_began_) {}

Connection::~Connection() {
  forget_body();
}

void Connection::start() {
  read();
}

bool Connection::is_settled() const {
  return phase_ != Phase::kHandling && !is_writing_;
}

void Connection::read() {
  if (is_reading_ || phase_ == Phase::kClosed || end_of_input_) return;
  if (phase_ == Phase::kHandling && pipelined_.size() > kPipelinedMax) return;
  is_reading_ = true;
  socket_.async_read_some(
      boost::asio::buffer(buffer_),
      [self = shared_from_this()](boost::system::error_code code, size_t bytes) {
        self->is_reading_ = false;
        if (self->phase_ == Phase::kClosed) return;
        if (!code) return self->take_in(bytes);
        self->end_of_input_ = true;
        self->gone_.request_stop();
        // An answer on its way may still be read by who has shut down only the sending side.
        const bool waits_for_answer = self->phase_ == Phase::kHandling || self->is_writing_;
        if (!waits_for_answer || code != boost::asio::error::eof) self->close();
      });
}

void Connection::take_in(size_t bytes) {
  const std::string_view text(buffer_.data(), bytes);
  if (phase_ == Phase::kLingering) {
    lingered_ += bytes;
    if (lingered_ > kLingerBytesMax) return close();
    return read();
  }
  if (phase_ == Phase::kHandling) {
    pipelined_ += text;
    return read();
  }
  if (parser_.is_idle()) phase_began_ = Clock::now();
  if (const auto error = parser_.push(text)) return answer_error(*error);
  advance();
}

// Goes on with what the parser holds, while no request is in work.
void Connection::advance() {
  if (parser_.has_head() && !head_seen_) {
    head_seen_ = true;
    head_came_ = Clock::now();
    look_at_head();
    if (phase_ != Phase::kReading) return;
  }
  count_body();
  if (phase_ != Phase::kReading) return;
  if (parser_.is_done()) return handle_request();
  read();
}

void Connection::look_at_head() {
  const HttpRequest& head = parser_.head();
  if (!context_.handler.is_quick(head)) {
    if (is_over_limit_) return answer_error({503, "too many connections; try again soon"});
    if (context_.draining) return answer_error({503, "the server is shutting down"});
  }
  if (auto refusal = context_.handler.check_head(head)) {
    if (head.has_body) return send_and_linger(*refusal, head);
    begin_work();  // nothing is left to read, so the connection can go on
    ConnectionExchange(shared_from_this(), parser_.take(), gone_.get_token())
        .respond(std::move(*refusal));
    return;
  }
  if (head.expects_continue && !parser_.is_done()) {
    send("HTTP/1.1 100 Continue\r\n\r\n", After::kMore);
  }
}

void Connection::count_body() {
  if (!parser_.has_head()) return;
  const auto bytes =
      static_cast<int64_t>(std::max(parser_.body_bytes(), parser_.announced_body_bytes()));
  const bool grew = bytes > counted_body_;
  context_.body_bytes += bytes - counted_body_;
  counted_body_ = bytes;
  if (grew && context_.body_bytes > static_cast<int64_t>(context_.options.body_bytes_in_all)) {
    answer_error({503, "too many large requests at once; try again soon"});
  }
}

void Connection::forget_body() {
  context_.body_bytes -= counted_body_;
  counted_body_ = 0;
}

void Connection::begin_work() {
  phase_ = Phase::kHandling;
  head_seen_ = false;
  has_answered_ = true;
  context_.handling += 1;
}

void Connection::handle_request() {
  begin_work();
  auto exchange =
      std::make_shared<ConnectionExchange>(shared_from_this(), parser_.take(), gone_.get_token());
  read();
  HttpHandler& handler = context_.handler;
  if (handler.is_quick(exchange->request())) return exchange->run(handler);
  context_.workers.post([exchange = std::move(exchange), &handler] { exchange->run(handler); });
}

void Connection::answer_error(const HttpError& error) {
  const HttpRequest head = parser_.has_head() ? parser_.head() : HttpRequest{};
  send_and_linger(context_.handler.error_response(head, error), head);
}

// The rest of the request is not wanted, so the connection cannot go on.
void Connection::send_and_linger(const HttpResponse& response, const HttpRequest& head) {
  begin_work();
  linger_after_ = true;
  forget_body();
  std::string text =
      response_head(response, head, static_cast<long long>(response.body.size()), false);
  if (head.method != "HEAD") text += response.body;
  send(std::move(text), After::kClose);
}

void Connection::send(std::string text, After after) {
  const std::scoped_lock lock(mutex_);
  if (!is_dead_) outbox_ += text;
  if (after != After::kMore) after_ = after;
  if (flush_posted_) return;
  flush_posted_ = true;
  boost::asio::post(context_.io, [self = shared_from_this()] { self->flush(); });
}

bool Connection::wait_for_room() {
  std::unique_lock lock(mutex_);
  const bool has_room = drained_.wait_for(lock, context_.options.write_timeout, [this] {
    return is_dead_ || outbox_.size() < kOutboxMax;
  });
  return has_room && !is_dead_;
}

void Connection::give_up() {
  boost::asio::post(context_.io, [self = shared_from_this()] { self->close(); });
}

void Connection::flush() {
  After after = After::kMore;
  {
    const std::scoped_lock lock(mutex_);
    flush_posted_ = false;
    if (is_writing_) return;
    if (is_dead_) on_its_way_.clear();
    if (on_its_way_.empty()) on_its_way_.swap(outbox_);
    if (on_its_way_.empty()) std::swap(after, after_);
    drained_.notify_all();
  }
  if (on_its_way_.empty()) {
    if (after != After::kMore) finish_answer(after);
    return;
  }
  is_writing_ = true;
  last_written_ = Clock::now();
  socket_.async_write_some(
      boost::asio::buffer(on_its_way_),
      [self = shared_from_this()](boost::system::error_code code, size_t bytes) {
        self->is_writing_ = false;
        if (code) self->close();
        self->on_its_way_.erase(0, bytes);
        self->flush();
      });
}

// The whole answer was taken by the system, or by nobody any more.
void Connection::finish_answer(After after) {
  context_.handling -= 1;
  if (phase_ == Phase::kClosed) return;
  forget_body();
  phase_ = Phase::kReading;
  phase_began_ = Clock::now();
  if (linger_after_) return linger();
  if (after == After::kClose) return close();
  if (!end_of_input_) gone_ = std::stop_source{};
  const std::string pipelined = std::exchange(pipelined_, {});
  if (end_of_input_ && pipelined.empty() && parser_.is_idle()) return close();
  if (const auto error = parser_.push(pipelined)) return answer_error(*error);
  advance();
  if (end_of_input_ && phase_ == Phase::kReading) close();  // half a request, and no more will come
  if (context_.draining) close_if_idle();  // it was told before that the connection goes on
}

void Connection::linger() {
  phase_ = Phase::kLingering;
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  if (end_of_input_) return close();
  read();
}

void Connection::tick(Clock::time_point now) {
  const auto in_phase = now - phase_began_;
  if (is_writing_ && now - last_written_ > context_.options.write_timeout) return close();
  if (phase_ == Phase::kLingering && in_phase > kLingerTime) return close();
  if (phase_ == Phase::kReading) check_patience(now);
}

void Connection::check_patience(Clock::time_point now) {
  const HttpOptions& options = context_.options;
  const auto in_phase = now - phase_began_;
  if (parser_.has_head()) {
    const std::chrono::duration<double> seconds = now - head_came_;
    const double least = seconds.count() * static_cast<double>(options.body_rate_min);
    if (now - head_came_ > options.body_grace &&
        static_cast<double>(parser_.body_bytes()) < least) {
      answer_error({408, "the body comes too slowly"});
    }
  } else if (is_over_limit_ && in_phase > kOverLimitTime) {
    answer_error({503, "too many connections; try again soon"});
  } else if (parser_.is_idle()) {
    if (!has_answered_ && in_phase > options.head_timeout) return close();
    if (in_phase > options.idle_timeout) close_if_idle();
  } else if (in_phase > options.head_timeout) {
    answer_error({408, "the header took too long"});
  }
}

// Who has not asked yet is about to, and whose bytes have come has: both get their answer, a 503.
void Connection::close_if_idle() {
  boost::system::error_code ignored;
  const bool may_ask = !has_answered_ || !parser_.is_idle() || socket_.available(ignored) > 0;
  if (phase_ == Phase::kReading && !may_ask) close();
}

void Connection::close() {
  if (phase_ == Phase::kClosed) return;
  const bool was_at_work = phase_ == Phase::kHandling;
  phase_ = Phase::kClosed;
  gone_.request_stop();
  boost::system::error_code ignored;
  socket_.close(ignored);
  forget_body();
  const std::scoped_lock lock(mutex_);
  is_dead_ = true;
  outbox_.clear();
  drained_.notify_all();
  // The end of an answer that was already given is not seen by flush() any more; that of a handler
  // still at work will be.
  if (was_at_work && std::exchange(after_, After::kMore) != After::kMore) context_.handling -= 1;
}

}  // namespace penstock
