#include "hub/url.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <cctype>
#include <memory>
#include <optional>

#include "format/text.h"

namespace penstock {
namespace {

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, FreeUrl>;

std::optional<std::string> part_of(const Url& url, CURLUPart part, unsigned int flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url.get(), part, &text, flags) != CURLUE_OK || text == nullptr) return {};
  std::string out = text;
  curl_free(text);
  return out;
}

Url parsed(const std::string& text) {
  Url url(curl_url());
  PENSTOCK_CHECK(url != nullptr);
  if (curl_url_set(url.get(), CURLUPART_URL, text.c_str(), CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK) {
    url.reset();
  }
  return url;
}

}  // namespace

bool UrlOrigin::is_this_machine() const {
  return host == "localhost" || host == "[::1]" || host.starts_with("127.");
}

Result<UrlOrigin> parse_origin(const std::string& text) {
  const Url url = parsed(text);
  const auto scheme = url ? part_of(url, CURLUPART_SCHEME) : std::nullopt;
  const auto host = url ? part_of(url, CURLUPART_HOST) : std::nullopt;
  const auto port = url ? part_of(url, CURLUPART_PORT, CURLU_DEFAULT_PORT) : std::nullopt;
  const bool good = scheme && (*scheme == "http" || *scheme == "https") && host && port &&
                    !part_of(url, CURLUPART_USER) && !part_of(url, CURLUPART_PASSWORD);
  if (!good) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} is no address that begins with https:// or http:// and names a "
                             "host alone",
                             escaped(text))};
  }
  UrlOrigin origin{*scheme, *host, *port};
  for (char& c : origin.host) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return origin;
}

Result<std::string> follow(const std::string& from, const std::string& location) {
  const Url url = parsed(from);
  PENSTOCK_CHECK(url != nullptr);
  const auto refused = [&](std::string_view why) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{} redirects to {}, {}", from, escaped(location), why)};
  };
  // Relative to what is there already.
  if (curl_url_set(url.get(), CURLUPART_URL, location.c_str(), CURLU_NON_SUPPORT_SCHEME) !=
      CURLUE_OK) {
    return refused("which is no address");
  }
  const auto target = part_of(url, CURLUPART_URL);
  const Result<UrlOrigin> origin = parse_origin(target.value_or(""));
  if (!origin) return refused("which is not followed: not http or https, or with a user's name");
  if (PENSTOCK_TRY(parse_origin(from)).is_secure() && !origin->is_secure()) {
    return refused("which is not followed: it is not encrypted any more");
  }
  return *target;
}

std::string percent_encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = std::isalnum(byte) != 0 || c == '-' || c == '.' || c == '_' || c == '~';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return out;
}

}  // namespace penstock
