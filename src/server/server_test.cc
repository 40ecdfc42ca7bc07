// The server before, while and after it can answer.
#include "server/server.h"

#include <gtest/gtest.h>

#include "server/http/test_client.h"
#include "server/test_server.h"

namespace penstock {
namespace {

constexpr std::string_view kChat = "/v1/chat/completions";
constexpr std::string_view kBody =
    R"({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"enable_thinking": false}})";

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.http.port = 0;
    options.version = "1";
    auto started = Server::start(std::move(options));
    ASSERT_TRUE(started) << started.error().message;
    server = std::move(*started);
  }
  void TearDown() override { server->stop(); }

  // -> status; what was said is in `told`.
  int ask(std::string_view method, std::string_view path, std::string_view body = "") {
    TestClient client(server->port());
    const int status = client.ask(method, path, body);
    told = client.answer.substr(client.answer.find("\r\n\r\n") + 4);
    return status;
  }

  std::unique_ptr<Server> server;
  std::string told;
};

TEST_F(ServerTest, while_the_model_is_loaded_health_tells_how_far_and_requests_are_503) {
  server->set_loading(25, 100);
  EXPECT_EQ(ask("GET", "/health"), 503);
  const Json health = *parse_json(told, "health");
  EXPECT_EQ(health["status"], "loading model");
  EXPECT_EQ(health["progress"], 0.25);
  for (const std::string_view path :
       {kChat, std::string_view("/v1/messages"), std::string_view("/api/chat")}) {
    EXPECT_EQ(ask("POST", path, kBody), 503) << path;
    EXPECT_NE(told.find("being loaded"), std::string::npos);
  }
  EXPECT_EQ(ask("GET", "/metrics"), 200);
  EXPECT_EQ(ask("GET", "/v1/models"), 503);
}

TEST_F(ServerTest, a_disk_that_fails_is_told_by_health_and_nothing_else) {
  FakeGenerator::Script script{.pieces = {"x"}};
  script.figures.storage_fault = "layer 3 expert 4: Input/output error";
  FakeGenerator generator(std::move(script));
  server->set_ready(&test_model(), &generator);
  EXPECT_EQ(ask("GET", "/health"), 503);
  EXPECT_NE(told.find("layer 3 expert 4"), std::string::npos);
  EXPECT_EQ(ask("POST", kChat, kBody), 200)
      << told;  // only another read can tell that it works again
}

TEST_F(ServerTest, while_it_drains_new_requests_are_503_and_health_says_why) {
  FakeGenerator generator({.pieces = {"x"}});
  server->set_ready(&test_model(), &generator);
  EXPECT_EQ(ask("GET", "/health"), 200);
  EXPECT_EQ(ask("POST", kChat, kBody), 200);
  server->drain();
  EXPECT_EQ(ask("POST", kChat, kBody), 503);
  EXPECT_EQ(ask("GET", "/health"), 503);
  EXPECT_NE(told.find("shutting down"), std::string::npos);
}

TEST_F(ServerTest, metrics_tell_reasons_and_parts) {
  FakeGenerator::Script script;
  script.figures.cancelled = {.disconnect = 3, .shutdown = 4};
  script.figures.rejected = {.queue_full = 5, .queue_timeout = 6, .context = 7, .shutdown = 8};
  script.figures.memory_parts = {{"expert slots", 90}, {"KV cache and states", 10}};
  FakeGenerator generator(std::move(script));
  server->set_ready(&test_model(), &generator);
  EXPECT_EQ(ask("GET", "/metrics"), 200);
  for (const char* line :
       {"cancelled_total{reason=\"disconnect\"} 3", "cancelled_total{reason=\"shutdown\"} 4",
        "rejected_total{reason=\"queue_full\"} 5", "rejected_total{reason=\"queue_timeout\"} 6",
        "rejected_total{reason=\"context\"} 7", "rejected_total{reason=\"shutdown\"} 8",
        "memory_used_bytes{part=\"expert_slots\"} 90",
        "memory_used_bytes{part=\"kv_cache_and_states\"} 10"}) {
    EXPECT_NE(told.find("\npenstock_" + std::string(line) + "\n"), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace penstock
