// Bytes of a connection, cut in two somewhere: requests of HTTP, and the JSON of their bodies.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "server/api/body.h"
#include "server/http/request_parser.h"

namespace {

// What the requests in `bytes` are, as one text, when they come in two pieces.
std::string read_all(std::string_view bytes, size_t cut) {
  penstock::RequestParser parser(penstock::HttpLimits{.body_bytes = 1 << 16});
  std::string told;
  for (const std::string_view piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
    auto error = parser.push(piece);
    while (!error && parser.is_done()) {
      const penstock::HttpRequest request = parser.take();
      told += request.method + ' ' + request.path + '\n' + request.body + '\n';
      static_cast<void>(penstock::parse_body(request.body));
      error = parser.push("");
    }
    if (error) return told + std::to_string(error->status);
  }
  return told;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = bytes.empty() ? 0 : data[0] * bytes.size() / 256;
  PENSTOCK_CHECK(read_all(bytes, cut) == read_all(bytes, bytes.size()));
  return 0;
}
