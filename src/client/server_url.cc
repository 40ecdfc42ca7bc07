#include "client/server_url.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace penstock {
namespace {

constexpr size_t kUrlBytesMax = 2048;

Error wrong(const std::string& text, const std::string& why) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("\"{}\" is no address of a server: {}; write http://HOST:PORT", text, why)};
}

bool is_word_of_url(char c) {
  return c > ' ' && c < 0x7f && c != '"' && c != '\\' && c != '<' && c != '>';
}

bool is_letter_of_host(char c) {
  const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return is_letter || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

bool is_port(const std::string& text) {
  int port = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), port);
  return failure == std::errc{} && end == text.data() + text.size() && port > 0 && port < 65536;
}

// "HOST", "HOST:PORT", "[V6]", "[V6]:PORT"
Result<void> read_authority(const std::string& text, const std::string& authority, ServerUrl& url) {
  std::string rest = authority;
  if (rest.starts_with('[')) {
    const size_t end = rest.find(']');
    if (end == std::string::npos) return wrong(text, "a ] is missing");
    url.host = rest.substr(1, end - 1);
    rest.erase(0, end + 1);
    constexpr std::string_view kDigits = "0123456789abcdefABCDEF:.";
    if (url.host.find_first_not_of(kDigits) != std::string::npos) {
      return wrong(text, "what is in brackets is no address");
    }
  } else {
    url.host = rest.substr(0, rest.find(':'));
    rest.erase(0, url.host.size());
    if (!std::ranges::all_of(url.host, is_letter_of_host)) {
      return wrong(text, "the name of the machine has characters that no name has");
    }
  }
  if (url.host.empty()) return wrong(text, "the name of the machine is missing");
  if (rest.empty()) return {};
  url.port = rest.substr(1);
  if (rest[0] != ':' || !is_port(url.port)) {
    return wrong(text, "behind the colon there is no port from 1 to 65535");
  }
  return {};
}

}  // namespace

std::string ServerUrl::authority() const {
  if (!socket_path.empty()) return "localhost";
  const bool is_v6 = host.find(':') != std::string::npos;
  const std::string name = is_v6 ? fmt::format("[{}]", host) : host;
  return port == "80" ? name : fmt::format("{}:{}", name, port);
}

bool ServerUrl::is_local() const {
  if (!socket_path.empty() || host == "localhost" || host == "::1") return true;
  return host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos;
}

Result<ServerUrl> parse_server_url(const std::string& text) {
  ServerUrl url;
  url.base = "/v1";
  if (text.size() > kUrlBytesMax) return wrong(text.substr(0, 60), "it is too long");
  if (!std::ranges::all_of(text, is_word_of_url)) {
    return wrong(text, "it has blanks or control characters");
  }
  if (text.starts_with('/') && text.ends_with(".sock")) {
    url.socket_path = text;
    return url;
  }
  std::string rest = text;
  if (rest.starts_with("https://")) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: https is not spoken here; give an http address on this machine or "
                    "network, such as that of an ssh tunnel (ssh -L 8080:localhost:8080 "
                    "HOST) or of a proxy that speaks TLS to the server",
                    text)};
  }
  if (rest.starts_with("http://")) rest.erase(0, 7);
  if (rest.find("://") != std::string::npos) return wrong(text, "only http is spoken here");
  const size_t slash = std::min(rest.find('/'), rest.size());
  const std::string authority = rest.substr(0, slash);
  std::string path = rest.substr(slash);
  if (authority.find('@') != std::string::npos) {
    return wrong("...", "a name or key stands in it; keys belong into --api-key-file");
  }
  if (path.find_first_of("?#") != std::string::npos) return wrong(text, "it has a ? or #");
  PENSTOCK_TRY(read_authority(text, authority, url));
  while (path.ends_with('/')) path.pop_back();
  if (!path.empty()) url.base = path;
  return url;
}

}  // namespace penstock
