#include "server/page.h"

namespace penstock {
namespace {

constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
    "data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

std::string_view type_of(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "image/svg+xml";
}

}  // namespace

std::optional<HttpResponse> page_response(std::string_view path) {
  constexpr std::string_view kFolder = "/page/";
  const std::string_view name = path == "/" ? "index.html" : path.substr(kFolder.size());
  for (const PageFile& file : page_files()) {
    if (file.name != name) continue;
    HttpResponse response;
    response.content_type = type_of(name);
    response.body = file.content;
    response.headers = {{"Content-Security-Policy", std::string(kPolicy)},
                        {"X-Frame-Options", "DENY"},
                        {"Cache-Control", "no-cache"}};
    return response;
  }
  return {};
}

}  // namespace penstock
