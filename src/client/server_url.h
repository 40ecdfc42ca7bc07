// The address of a server, as people write it.
//
//   http://127.0.0.1:8080   localhost:8080   http://box/openai/v1   http://[::1]:8080   /run/penstock.sock
//
// Threads  plain functions
// Errors   kInvalidArgument: what it is not, and what to write instead; https among them, as no TLS
//          is spoken here
#pragma once

#include <string>

#include "base/result.h"

namespace penstock {

struct ServerUrl {
  std::string host;         // without brackets
  std::string port = "80";  // a number
  std::string base;         // "/v1": the paths of the API follow it
  std::string socket_path;  // of a unix socket, in place of host and port; or empty

  std::string authority() const;  // "[::1]:8080", for Host and for messages
  bool is_local() const;          // this machine: what is sent is seen by nobody else
};

Result<ServerUrl> parse_server_url(const std::string& text);

}  // namespace penstock
