// Addresses, answers of HTTP and streams of events, cut anywhere; against real sockets the chat is
// tested as a program (tests/cli/remote_chat_test.py).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "client/chat_stream.h"
#include "client/http_response.h"
#include "client/remote_chat.h"
#include "client/server_url.h"

namespace penstock {
namespace {

TEST(ServerUrl, reads_what_people_write) {
  struct Row {
    const char *text, *host, *port, *base, *authority;
  };
  for (const Row& row : {Row{"http://127.0.0.1:8080", "127.0.0.1", "8080", "/v1", "127.0.0.1:8080"},
                         Row{"localhost:8080/", "localhost", "8080", "/v1", "localhost:8080"},
                         Row{"http://box", "box", "80", "/v1", "box"},
                         Row{"http://box/openai/v1/", "box", "80", "/openai/v1", "box"},
                         Row{"http://[::1]:99/x", "::1", "99", "/x", "[::1]:99"}}) {
    const auto url = parse_server_url(row.text);
    ASSERT_TRUE(url) << row.text << ": " << url.error().message;
    EXPECT_EQ(url->host, row.host);
    EXPECT_EQ(url->port, row.port);
    EXPECT_EQ(url->base, row.base);
    EXPECT_EQ(url->authority(), row.authority);
  }
  EXPECT_EQ(parse_server_url("/run/penstock.sock")->socket_path, "/run/penstock.sock");
  EXPECT_TRUE(parse_server_url("http://127.0.0.1")->is_local());
  EXPECT_FALSE(parse_server_url("http://127.evil.example")->is_local());
}

TEST(ServerUrl, refuses_what_could_mean_something_else) {
  for (const char* text :
       {"", "http://", "ftp://box", "http://box:0", "http://box:65536", "http://box:x",
        "http://a b", "http://box/\r\nX: y", "http://me:key@box", "http://box?x", "http://[::1",
        "http://[x]", "http://b\xc3\xb6x", "http://box:80:90"}) {
    const auto url = parse_server_url(text);
    ASSERT_FALSE(url) << text;
    EXPECT_EQ(url.error().code, ErrorCode::kInvalidArgument) << text;
  }
  EXPECT_NE(parse_server_url("https://box").error().message.find("https is not spoken"),
            std::string::npos);
  EXPECT_EQ(parse_server_url("http://me:secret@box").error().message.find("secret"),
            std::string::npos);
}

// Status and body of what `bytes` are when they come in two pieces; or the error.
std::string read_response(std::string_view bytes, size_t cut) {
  ResponseReader reader;
  std::string body;
  for (const std::string_view piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
    if (const auto pushed = reader.push(piece, body); !pushed) return pushed.error().message;
  }
  if (const auto finished = reader.finish(body); !finished) return finished.error().message;
  return std::to_string(reader.status()) + " " + body;
}

TEST(HttpResponse, is_the_same_wherever_it_is_cut) {
  for (const std::string_view bytes :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello"}) {
    for (size_t cut = 0; cut <= bytes.size(); ++cut)
      EXPECT_EQ(read_response(bytes, cut), "200 hello");
  }
}

TEST(HttpResponse, what_breaks_off_or_is_none_is_an_error) {
  for (const std::string_view bytes :
       {"", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "HTTP/1.1 200 OK\r\nX",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"}) {
    EXPECT_FALSE(read_response(bytes, bytes.size() / 2).starts_with("200")) << bytes;
  }
  std::string endless = "HTTP/1.1 200 OK\r\nX: ";
  endless.append(ResponseReader::kHeadBytesMax * 2, 'x');
  EXPECT_FALSE(read_response(endless, 9).starts_with("200"));
}

std::string told(std::string_view body, size_t cut, bool is_events = true) {
  ChatStream stream(is_events);
  std::string deltas;
  const auto note = [&](const ChatDelta& delta) {
    if (delta.kind == ChatDelta::Kind::kContent) deltas += delta.text;
    if (delta.kind == ChatDelta::Kind::kPrompt) deltas += fmt::format("[{}]", delta.done);
    if (delta.kind == ChatDelta::Kind::kQueue) deltas += fmt::format("<{}>", delta.done);
  };
  for (const std::string_view piece : {body.substr(0, cut), body.substr(cut)}) {
    if (const auto pushed = stream.push(piece, note); !pushed) return pushed.error().message;
  }
  const auto answer = stream.finish(note);
  if (!answer) return answer.error().message;
  std::string text =
      fmt::format("{}|{}|{}|{}", deltas, answer->reasoning, answer->content, answer->finish_reason);
  for (const CalledTool& call : answer->calls) {
    text += fmt::format("|{} {} {}", call.id, call.name, call.arguments);
  }
  return text;
}

TEST(ChatStream, events_say_the_same_wherever_they_are_cut) {
  const std::string_view body =
      ": a comment\n\n"
      "data: {\"choices\": [{\"delta\": {\"role\": \"assistant\", \"content\": \"\"}}], "
      "\"queue_position\": 2}\r\n\r\n"
      "data: {\"choices\": [], \"prompt_progress\": {\"processed\": 3, \"total\": 9}}\n\n"
      "data: {\"choices\": [{\"delta\": {\"reasoning_content\": \"hm\"}}]}\n\n"
      "data: {\"choices\": [{\"delta\": {\"reasoning\": \"m\"}}]}\n\n"
      "data: {\"choices\": [{\"delta\": {\"content\": \"h\xc3\xa4\"}}]}\n\n"
      "data: {\"choices\": [{\"delta\": {\"tool_calls\": [{\"index\": 0, \"id\": \"a\", "
      "\"function\": "
      "{\"name\": \"f\", \"arguments\": \"\"}}]}}]}\n\n"
      "data: {\"choices\": [{\"delta\": {\"tool_calls\": [{\"index\": 0, \"function\": "
      "{\"arguments\": \"{\\\"x\\\"\"}}]}}]}\n\n"
      "data: {\"choices\": [{\"delta\": {\"tool_calls\": [{\"index\": 0, \"function\": "
      "{\"arguments\": \": 1}\"}}, {\"index\": 1, \"id\": \"b\", \"function\": {\"name\": \"g\", "
      "\"arguments\": {\"y\": 2}}}]}}]}\n\n"
      "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"tool_calls\"}]}\n\n"
      "data: [DONE]\n\n";
  const std::string expected =
      "<2>[3]h\xc3\xa4|hmm|h\xc3\xa4|tool_calls|a f {\"x\": 1}|b g {\"y\":2}";
  for (size_t cut = 0; cut <= body.size(); ++cut) EXPECT_EQ(told(body, cut), expected);
}

TEST(ChatStream, one_whole_object_is_an_answer_too) {
  const std::string body =
      "{\"choices\": [{\"message\": {\"content\": \"hi\", \"tool_calls\": [{\"id\": \"a\", "
      "\"function\": "
      "{\"name\": \"f\", \"arguments\": \"{}\"}}]}, \"finish_reason\": \"stop\"}]}";
  EXPECT_EQ(told(body, 9, false), "hi||hi|stop|a f {}");
}

TEST(ChatStream, what_is_no_answer_is_an_error) {
  EXPECT_NE(
      told("data: {\"choices\": [{\"delta\": {\"content\": \"h\"}}]}\n\n", 5).find("broke off"),
      std::string::npos);
  EXPECT_NE(told("data: {\"error\": {\"message\": \"no memory\"}}\n\n", 5).find("no memory"),
            std::string::npos);
  EXPECT_NE(told("data: {\"x\"\n\n", 5).find("event"), std::string::npos);
  EXPECT_NE(told("data: 5\n\n", 5).find("no object"), std::string::npos);
  EXPECT_NE(told("{\"hello\": 1}", 5, false).find("no choices"), std::string::npos);
  EXPECT_NE(told("<html>", 5, false).find("JSON"), std::string::npos);
  // Members of other types than they should have say nothing, and end nothing.
  EXPECT_NE(told("data: {\"choices\": {}, \"usage\": 5, \"prompt_progress\": 7}\n\n"
                 "data: {\"choices\": [5]}\n\n"
                 "data: {\"choices\": [{\"delta\": {\"content\": 5, \"tool_calls\": [5, "
                 "{\"function\": 3}]}}]}\n\n",
                 5)
                .find("broke off"),
            std::string::npos);
}

TEST(ChatStream, errors_are_found_in_what_servers_say) {
  EXPECT_EQ(error_message_of("{\"error\": {\"message\": \"a\"}}"), "a");
  EXPECT_EQ(error_message_of("{\"error\": \"b\"}"), "b");
  EXPECT_EQ(error_message_of("{\"message\": \"c\"}"), "c");
  EXPECT_EQ(error_message_of("<html>"), "<html>");
}

TEST(RemoteChat, messages_are_sent_as_the_api_has_them) {
  const Json messages = Json::array(
      {Json{{"role", "user"}, {"content", "x"}},
       Json{{"role", "assistant"},
            {"content", ""},
            {"tool_calls",
             Json::array(
                 {Json{{"id", "1"}, {"function", {{"name", "f"}, {"arguments", {{"k", 1}}}}}}})}}});
  const Json sent = remote_messages("be kind", messages);
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_EQ(sent[0]["role"], "system");
  EXPECT_EQ(sent[2]["tool_calls"][0]["function"]["arguments"], "{\"k\":1}");
}

}  // namespace
}  // namespace penstock
