// Connections as they misbehave: slow, many, gone; and handlers that do.
#include "server/http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "server/http/test_client.h"

namespace penstock {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kPostOfLength =
    "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";

// /quick is answered by the sockets' thread, /echo says what came, /throw throws, /flood writes until
// nobody takes it, /wait until its client has gone.
class Handler : public HttpHandler {
 public:
  std::optional<HttpResponse> check_head(const HttpRequest&) override { return {}; }
  bool is_quick(const HttpRequest& head) const override { return head.path == "/quick"; }
  void handle(Exchange& exchange) override {
    const HttpRequest& request = exchange.request();
    if (request.path == "/throw") throw std::runtime_error("spilled");
    if (request.path == "/flood") return flood(exchange);
    if (request.path == "/wait") {
      while (!exchange.gone().stop_requested()) std::this_thread::sleep_for(1ms);
      ++left;
      HttpResponse response;
      response.status = 499;
      return exchange.respond(std::move(response));
    }
    HttpResponse response;
    response.body = request.body;
    exchange.respond(std::move(response));
  }
  HttpResponse error_response(const HttpRequest&, const HttpError& error) override {
    HttpResponse response;
    response.status = error.status;
    response.body = error.message;
    return response;
  }

  std::atomic<int> left{0}, given_up{0};

 private:
  void flood(Exchange& exchange) {
    exchange.begin_stream({});
    const std::string text(256 << 10, 'x');
    while (exchange.write(text)) {
    }
    ++given_up;
    exchange.end_stream();
  }
};

class HttpServerTest : public testing::Test {
 protected:
  void start() {
    options.port = 0;
    auto started = HttpServer::start(options, handler);
    ASSERT_TRUE(started) << started.error().message;
    server = std::move(*started);
  }
  int ask(std::string_view path, const char* from = nullptr) {
    return TestClient(server->port(), from).ask("GET", path);
  }
  template <class Condition>
  static bool comes_true(const Condition& condition) {
    const auto end = std::chrono::steady_clock::now() + 60s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(1ms);
    }
    return true;
  }

  HttpOptions options;
  Handler handler;
  std::unique_ptr<HttpServer> server;
};

TEST_F(HttpServerTest, what_a_handler_throws_ends_its_request_alone) {
  start();
  TestClient client(server->port());
  EXPECT_EQ(client.ask("GET", "/throw"), 500);
  EXPECT_NE(client.answer.find("spilled"), std::string::npos);
  EXPECT_EQ(ask("/echo"), 200);
}

TEST_F(HttpServerTest, a_body_that_comes_too_slowly_is_ended_and_a_slow_but_steady_one_is_not) {
  options.body_grace = 100ms;
  options.body_rate_min = 20;  // a steady client may be held up for seconds
  start();
  const TestClient slow(server->port());
  slow.send(std::string(kPostOfLength) + "1000\r\n\r\nx");
  EXPECT_EQ(slow.receive().substr(9, 3), "408");
  const TestClient steady(server->port());
  const std::string part(100, 'y');
  steady.send(std::string(kPostOfLength) + "600\r\nConnection: close\r\n\r\n" + part);
  for (int i = 1; i < 6; ++i) {
    std::this_thread::sleep_for(50ms);
    steady.send(part);
  }
  EXPECT_EQ(steady.receive().substr(9, 3), "200");
}

TEST_F(HttpServerTest, a_reader_that_takes_nothing_is_given_up) {
  options.write_timeout = 200ms;
  start();
  const TestClient client(server->port());
  client.send("GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(comes_true([&] { return handler.given_up == 1; }));
  EXPECT_TRUE(comes_true([&] { return server->figures().connections == 0; }));
  EXPECT_EQ(ask("/echo"), 200);
}

TEST_F(HttpServerTest, who_has_gone_or_will_send_no_more_is_noticed_while_the_handler_works) {
  start();
  for (const bool closes : {true, false}) {
    const int before = handler.left;
    auto client = std::make_unique<TestClient>(server->port());
    client->send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_TRUE(comes_true([&] { return server->figures().handling == 1; }));
    if (closes) {
      client.reset();
    } else {
      client->shut_sending();
      EXPECT_EQ(client->receive().substr(9, 3), "499");  // and hears what became of its request
    }
    EXPECT_TRUE(comes_true([&] { return handler.left == before + 1; }));
    EXPECT_TRUE(comes_true([&] { return server->figures().handling == 0; }));
  }
}

TEST_F(HttpServerTest, beyond_the_limit_of_connections_only_what_is_quick_is_answered) {
  options.max_connections = 2;
  start();
  const TestClient one(server->port()), two(server->port());
  ASSERT_TRUE(comes_true([&] { return server->figures().connections == 2; }));
  EXPECT_EQ(ask("/echo"), 503);
  EXPECT_EQ(ask("/quick"), 200);
  EXPECT_EQ(server->figures().refused, 2u);
}

// A request may be on its way over a connection that was just made: it is answered, not cut off. One
// that rests between two requests is closed.
TEST_F(HttpServerTest, while_it_drains_new_connections_hear_why_and_resting_ones_are_closed) {
  start();
  const TestClient fresh(server->port()), half(server->port()), rests(server->port());
  half.send("GET /echo HTTP/1.1\r\nHo");
  rests.send("GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(rests.receive("\r\n\r\n").substr(9, 3), "200");
  ASSERT_TRUE(comes_true([&] { return server->figures().connections == 3; }));
  server->drain();
  EXPECT_EQ(rests.receive(), "");
  EXPECT_TRUE(comes_true([&] { return server->figures().connections == 2; }));
  half.send("st: localhost\r\n\r\n");
  EXPECT_EQ(half.receive().substr(0, 12), "HTTP/1.1 503");
  fresh.send("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(fresh.receive().substr(0, 12), "HTTP/1.1 503");
}

TEST_F(HttpServerTest, one_address_cannot_take_all_connections) {
  options.max_per_address = 2;
  options.counts_loopback = true;
  start();
  auto one = std::make_unique<TestClient>(server->port());
  const TestClient two(server->port());
  ASSERT_TRUE(comes_true([&] { return server->figures().connections == 2; }));
  EXPECT_EQ(ask("/echo"), 503);
  if (!TestClient(server->port(), "127.0.0.2").is_open()) GTEST_SKIP() << "one address only";
  EXPECT_EQ(ask("/echo", "127.0.0.2"), 200);
  one.reset();
  EXPECT_TRUE(comes_true([&] { return ask("/echo") == 200; }));
}

TEST_F(HttpServerTest, this_machine_may_have_more_connections_than_another_address) {
  options.max_per_address = 1;
  start();
  const TestClient one(server->port());
  ASSERT_TRUE(comes_true([&] { return server->figures().connections == 1; }));
  EXPECT_EQ(ask("/echo"), 200);
}

TEST_F(HttpServerTest, bodies_of_all_connections_have_a_limit_together) {
  options.body_bytes_in_all = 1000;
  start();
  const TestClient first(server->port());
  first.send(std::string(kPostOfLength) + "800\r\n\r\n" + std::string(700, 'x'));
  EXPECT_TRUE(comes_true([&] {
    TestClient second(server->port());
    return second.ask("POST", "/echo", std::string(300, 'y')) == 503;
  }));
  first.send(std::string(100, 'x'));
  EXPECT_EQ(first.receive("\r\n\r\n").substr(9, 3), "200");
  EXPECT_TRUE(comes_true([&] {
    TestClient third(server->port());
    return third.ask("POST", "/echo", std::string(300, 'y')) == 200;
  }));
}

}  // namespace
}  // namespace penstock
