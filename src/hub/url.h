// Addresses, taken apart and put together by libcurl's own parser, so that what is checked here is what
// is connected to.
//
// Threads  any
// Errors   parse_origin(): kInvalidArgument. follow(): kCorrupt, for a redirect that is not followed
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock {

// Whom a request goes to.
struct UrlOrigin {
  std::string scheme, host, port;

  bool is_secure() const { return scheme == "https"; }
  bool is_this_machine() const;
  bool operator==(const UrlOrigin&) const = default;
};

// Of http:// and https:// addresses without a user name in them.
Result<UrlOrigin> parse_origin(const std::string& url);

// Where `location` leads from `url`. Never from https to http.
Result<std::string> follow(const std::string& url, const std::string& location);

// For one part of a path: all but letters, digits and -._~ as %XX.
std::string percent_encoded(std::string_view text);

}  // namespace penstock
