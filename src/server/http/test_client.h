// A client for tests: one connection over loopback, bytes out and bytes in.
//
// Threads  one
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <string_view>

namespace penstock {

class TestClient {
 public:
  // From another address of this machine, where one is given; is_open() says whether it has it.
  explicit TestClient(int port, const char* from = nullptr)
      : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    if (from != nullptr) {
      ::inet_pton(AF_INET, from, &address.sin_addr);
      if (::bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
        return;
    }
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    address.sin_port = htons(static_cast<uint16_t>(port));
    is_open_ =
        ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~TestClient() { ::close(socket_); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  bool is_open() const { return is_open_; }
  void send(std::string_view text) const {
    (void)!::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
  }
  void shut_sending() const { ::shutdown(socket_, SHUT_WR); }

  // What comes until it holds `end`, the server closes, or nothing comes for so long.
  std::string receive(std::string_view end = "",
                      std::chrono::milliseconds patience = std::chrono::seconds(30)) const {
    std::string text;
    for (;;) {
      pollfd ready{socket_, POLLIN, 0};
      if (::poll(&ready, 1, static_cast<int>(patience.count())) != 1) return text;
      char buffer[4096];
      const ssize_t bytes = ::recv(socket_, buffer, sizeof(buffer), 0);
      if (bytes <= 0) return text;
      text.append(buffer, static_cast<size_t>(bytes));
      if (!end.empty() && text.find(end) != std::string::npos) return text;
    }
  }

  // The status of an answer to a request that ends its connection; 0: none came.
  int ask(std::string_view method, std::string_view path, std::string_view body = "") {
    std::string text = std::string(method) + " " + std::string(path) +
                       " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    if (method == "POST") {
      text += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n";
    }
    send(text + "\r\n" + std::string(body));
    answer = receive();
    return answer.size() < 12 ? 0 : std::stoi(answer.substr(9, 3));
  }

  std::string answer;  // of ask()

 private:
  int socket_;
  bool is_open_ = false;
};

}  // namespace penstock
