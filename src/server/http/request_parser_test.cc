#include "server/http/request_parser.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

const std::string kPost =
    "POST /v1/x?y=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nA: b\r\n\r\nhello";

// The status of the first complaint, 0 when there is none, however the bytes are cut.
int status_of(const std::string& bytes, size_t piece) {
  RequestParser parser(HttpLimits{});
  for (size_t at = 0; at < bytes.size(); at += piece) {
    if (const auto error = parser.push(std::string_view(bytes).substr(at, piece))) {
      return error->status;
    }
  }
  return 0;
}

TEST(RequestParser, reads_a_request_however_its_bytes_arrive) {
  for (size_t cut = 0; cut <= kPost.size(); ++cut) {
    RequestParser parser(HttpLimits{});
    ASSERT_FALSE(parser.push(kPost.substr(0, cut)));
    ASSERT_FALSE(parser.push(kPost.substr(cut)));
    ASSERT_TRUE(parser.is_done()) << cut;
    const HttpRequest request = parser.take();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/v1/x");
    EXPECT_EQ(request.query, "y=1");
    EXPECT_EQ(*request.find("a"), "b");
    EXPECT_EQ(request.body, "hello");
    EXPECT_TRUE(request.keep_alive);
    EXPECT_TRUE(parser.is_idle());
  }
}

TEST(RequestParser, skips_empty_lines_before_a_request_however_they_arrive) {
  const std::string bytes = "\r\n\r\n" + kPost;
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    RequestParser parser(HttpLimits{});
    ASSERT_FALSE(parser.push(bytes.substr(0, cut))) << cut;
    ASSERT_FALSE(parser.push(bytes.substr(cut))) << cut;
    ASSERT_TRUE(parser.is_done()) << cut;
    EXPECT_EQ(parser.take().body, "hello");
  }
}

// An assertion of the library met this in builds that have assertions.
TEST(RequestParser, a_last_chunk_with_half_of_its_end_is_waited_for) {
  const std::string bytes =
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n";
  for (size_t piece : {size_t{1}, size_t{2}, bytes.size()}) EXPECT_EQ(status_of(bytes, piece), 0);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    RequestParser parser(HttpLimits{});
    EXPECT_FALSE(parser.push(bytes.substr(0, cut)));
    EXPECT_FALSE(parser.push(bytes.substr(cut)));
    EXPECT_FALSE(parser.push(""));
    EXPECT_FALSE(parser.is_done());
  }
}

TEST(RequestParser, reads_chunks_however_their_bytes_arrive) {
  const std::string chunked =
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
  for (size_t cut = 0; cut <= chunked.size(); ++cut) {
    RequestParser parser(HttpLimits{});
    ASSERT_FALSE(parser.push(chunked.substr(0, cut)));
    ASSERT_FALSE(parser.push(chunked.substr(cut)));
    ASSERT_TRUE(parser.is_done()) << cut;
    EXPECT_EQ(parser.take().body, "hello");
  }
}

TEST(RequestParser, what_follows_a_request_begins_the_next) {
  RequestParser parser(HttpLimits{});
  const std::string get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
  ASSERT_FALSE(parser.push(get + kPost + get));
  EXPECT_EQ(parser.take().path, "/a");
  ASSERT_FALSE(parser.push(""));
  EXPECT_EQ(parser.take().body, "hello");
  ASSERT_FALSE(parser.push(""));
  EXPECT_EQ(parser.take().path, "/a");
  EXPECT_TRUE(parser.is_idle());
}

TEST(RequestParser, refuses_what_no_request_may_hold_in_pieces_too) {
  const std::string begin = "GET / HTTP/1.1\r\nHost: h\r\n";
  const std::pair<std::string, int> rows[] = {
      {begin + "X: a\r\n b\r\n\r\n", 400},
      {begin + "X: a\r\n\tb\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: h\n\n", 400},
      {begin + std::string("X: a\0b\r\n\r\n", 10), 400},
      {begin + "X : a\r\n\r\n", 400},
      {begin + "X: a\rb\r\n\r\n", 400},
      {begin + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
      {begin + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {begin + "Content-Length: 99999999999\r\n\r\n", 413},
      {begin + "Expect: miracles\r\n\r\n", 417},
      {begin + "X: " + std::string(17000, 'a') + "\r\n\r\n", 431},
      {"GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n", 414},
      {"POST / HTTP/1.1\r\nHost: h\r\n\r\n", 411},
      {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505},
      {std::string(20000, 'a'), 431},
  };
  for (const auto& [bytes, status] : rows) {
    for (const size_t piece : {size_t{1}, size_t{7}, bytes.size()}) {
      EXPECT_EQ(status_of(bytes, piece), status) << bytes.substr(0, 80) << " by " << piece;
    }
  }
}

TEST(RequestParser, a_body_beyond_the_limit_is_refused_before_it_is_kept) {
  RequestParser parser(HttpLimits{.body_bytes = 100});
  ASSERT_FALSE(parser.push("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"));
  const auto error = parser.push("c8\r\n" + std::string(200, 'x') + "\r\n");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, 413);
}

TEST(RequestParser, the_host_of_an_absolute_target_counts) {
  RequestParser parser(HttpLimits{});
  ASSERT_FALSE(parser.push("GET http://evil.example/a?b HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  const HttpRequest request = parser.take();
  EXPECT_EQ(*request.find("Host"), "evil.example");
  EXPECT_EQ(request.path, "/a");
  EXPECT_EQ(request.query, "b");
}

}  // namespace
}  // namespace penstock
