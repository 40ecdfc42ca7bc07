#include "server/http/access.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

HttpRequest with(std::vector<HttpHeader> headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  return request;
}

int status_of(const std::optional<HttpError>& error) {
  return error ? error->status : 200;
}

TEST(Access, only_names_of_this_machine_may_be_the_host) {
  AccessOptions options;
  options.allowed_hosts = {"box.example:80"};
  const Access access(options);
  for (const char* host : {"localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.1.2.3", "[::1]:1",
                           "box.example", "Box.Example:99"}) {
    EXPECT_EQ(status_of(access.check_origin(with({{"Host", host}}))), 200) << host;
  }
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                           "[::2]", "192.168.1.1", "localhost@evil.example", "0.0.0.0"}) {
    EXPECT_EQ(status_of(access.check_origin(with({{"Host", host}}))), 403) << host;
  }
}

TEST(Access, exactly_one_host_is_needed) {
  EXPECT_EQ(status_of(Access::check_form(with({}))), 400);
  EXPECT_EQ(status_of(Access::check_form(with({{"Host", "a"}, {"host", "a"}}))), 400);
  EXPECT_EQ(status_of(Access::check_form(with({{"Host", "a b"}}))), 400);
  EXPECT_EQ(status_of(Access::check_form(with({{"Host", ""}}))), 400);
  EXPECT_EQ(status_of(Access::check_form(with({{"Host", "a:80"}}))), 200);
}

TEST(Access, only_the_page_itself_and_allowed_origins_may_ask) {
  AccessOptions options;
  options.cors_origins = {"https://chat.example"};
  const Access access(options);
  const auto ask = [&](const char* origin) {
    return with({{"Host", "localhost:8080"}, {"Origin", origin}});
  };
  EXPECT_EQ(status_of(access.check_origin(ask("http://localhost:8080"))), 200);
  EXPECT_EQ(status_of(access.check_origin(ask("https://chat.example"))), 200);
  for (const char* origin : {"http://localhost:8081", "https://evil.example", "null", ""}) {
    EXPECT_EQ(status_of(access.check_origin(ask(origin))), 403) << origin;
    EXPECT_TRUE(access.cors_headers(ask(origin)).empty());
  }
  EXPECT_FALSE(access.cors_headers(ask("https://chat.example")).empty());
}

TEST(Access, one_right_key_in_either_header_suffices) {
  Access access({});
  EXPECT_EQ(status_of(access.check_key(with({}))), 200);
  access.set_keys({"one", "two"});
  EXPECT_TRUE(access.needs_key());
  EXPECT_EQ(status_of(access.check_key(with({}))), 401);
  EXPECT_EQ(status_of(access.check_key(with({{"Authorization", "Bearer two"}}))), 200);
  EXPECT_EQ(status_of(access.check_key(with({{"x-api-key", "one"}}))), 200);
  EXPECT_EQ(status_of(access.check_key(with({{"Authorization", "Basic one"}}))), 401);
  EXPECT_EQ(status_of(access.check_key(with({{"Authorization", "Bearer "}}))), 401);
  EXPECT_EQ(status_of(access.check_key(with({{"X-Api-Key", "onetwo"}}))), 401);
  EXPECT_EQ(status_of(access.check_key(with({{"X-Api-Key", "on"}}))), 401);
}

TEST(Access, comparing_keys_finds_every_difference) {
  EXPECT_TRUE(equals_in_constant_time("secret", "secret"));
  for (const char* other : {"", "s", "secre", "secreT", "secrets", "secretsecret", "xecret"}) {
    EXPECT_FALSE(equals_in_constant_time(other, "secret")) << other;
  }
  EXPECT_FALSE(equals_in_constant_time("", ""));
}

TEST(Access, a_file_of_keys_may_hold_comments_and_empty_lines) {
  EXPECT_EQ(keys_of("# mine\n\n one \r\ntwo"), (std::vector<std::string>{"one", "two"}));
}

}  // namespace
}  // namespace penstock
