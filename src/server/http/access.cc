#include "server/http/access.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>

namespace penstock {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1));
}

std::string machine_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? lower(name) : "";
}

bool is_loopback_address(std::string_view host) {
  std::string text(host);
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  boost::system::error_code code;
  const auto address = boost::asio::ip::make_address(text, code);
  return !code && address.is_loopback();
}

}  // namespace

bool equals_in_constant_time(std::string_view given, std::string_view secret) {
  if (secret.empty()) return false;
  unsigned difference = given.size() == secret.size() ? 0u : 1u;
  for (size_t i = 0; i < given.size(); ++i) {
    difference |= static_cast<unsigned>(static_cast<unsigned char>(given[i]) ^
                                        static_cast<unsigned char>(secret[i % secret.size()]));
  }
  return difference == 0;
}

std::string host_without_port(std::string_view authority) {
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    return lower(authority.substr(0, end == std::string_view::npos ? end : end + 1));
  }
  return lower(authority.substr(0, authority.find(':')));
}

std::vector<std::string> keys_of(std::string_view text) {
  std::vector<std::string> keys;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string line = trimmed(text.substr(0, end));
    if (!line.empty() && !line.starts_with('#')) keys.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return keys;
}

Access::Access(AccessOptions options) : options_(std::move(options)) {
  for (std::string& host : options_.allowed_hosts) host = host_without_port(host);
  options_.allowed_hosts.push_back("localhost");
  if (const std::string name = machine_name(); !name.empty()) {
    options_.allowed_hosts.push_back(name);
    options_.allowed_hosts.push_back(name + ".local");
  }
}

void Access::set_keys(std::vector<std::string> keys) {
  const std::scoped_lock lock(mutex_);
  keys_ = std::move(keys);
}

bool Access::needs_key() const {
  const std::scoped_lock lock(mutex_);
  return !keys_.empty();
}

std::optional<HttpError> Access::check_form(const HttpRequest& request) {
  const int hosts = request.count("Host");
  if (hosts == 0) return HttpError{400, "the Host header is missing"};
  if (hosts > 1) return HttpError{400, "there is more than one Host header"};
  const std::string& host = *request.find("Host");
  const bool odd = host.empty() || host.find_first_of(" \t/\\@?#,") != std::string::npos;
  if (odd) return HttpError{400, "the Host header is malformed"};
  return {};
}

std::optional<HttpError> Access::check_key(const HttpRequest& request) const {
  const std::scoped_lock lock(mutex_);
  if (keys_.empty()) return {};
  bool good = false;
  for (const HttpHeader& header : request.headers) {
    std::string_view given;
    if (equals_ignoring_case(header.name, "X-Api-Key")) {
      given = header.value;
    } else if (equals_ignoring_case(header.name, "Authorization")) {
      constexpr std::string_view kBearer = "bearer ";
      if (!equals_ignoring_case(std::string_view(header.value).substr(0, kBearer.size()),
                                kBearer)) {
        continue;
      }
      given = std::string_view(header.value).substr(kBearer.size());
    } else {
      continue;
    }
    // Every key is compared, so that the time does not tell which one was nearly met.
    for (const std::string& key : keys_) good = equals_in_constant_time(given, key) || good;
  }
  if (good) return {};
  return HttpError{401, "an API key is needed: Authorization: Bearer KEY, or X-Api-Key: KEY"};
}

bool Access::is_allowed_host(const std::string& host) const {
  return is_loopback_address(host) ||
         std::ranges::find(options_.allowed_hosts, host) != options_.allowed_hosts.end();
}

bool Access::is_allowed_origin(const std::string& origin) const {
  return std::ranges::any_of(options_.cors_origins, [&](const std::string& allowed) {
    return allowed == "*" || lower(allowed) == lower(origin);
  });
}

std::optional<HttpError> Access::check_origin(const HttpRequest& request) const {
  const std::string& host = *request.find("Host");
  if (options_.checks_host && !is_allowed_host(host_without_port(host))) {
    return HttpError{403, "this Host is not one of this machine's names; --allowed-host adds one"};
  }
  const std::string* origin = request.find("Origin");
  if (origin == nullptr || is_allowed_origin(*origin)) return {};
  // The page that this server itself has sent.
  const size_t scheme = origin->find("://");
  const bool own = scheme != std::string::npos && lower(origin->substr(scheme + 3)) == lower(host);
  if (own) return {};
  return HttpError{403, "this Origin may not ask here; --cors-origin allows one"};
}

std::vector<HttpHeader> Access::cors_headers(const HttpRequest& request) const {
  const std::string* origin = request.find("Origin");
  if (origin == nullptr || !is_allowed_origin(*origin)) return {};
  return {{"Access-Control-Allow-Origin", *origin},
          {"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
          {"Access-Control-Allow-Headers",
           "Authorization, Content-Type, X-Api-Key, Anthropic-Version, Anthropic-Beta"},
          {"Access-Control-Expose-Headers", "X-Penstock-Ignored, Retry-After"},
          {"Vary", "Origin"}};
}

}  // namespace penstock
