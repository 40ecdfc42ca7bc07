// Bytes of a connection to one answer of HTTP: no sockets, so that it can be tested and fuzzed alone.
//
//   ResponseReader reader;
//   std::string body;
//   PENSTOCK_TRY(reader.push(bytes, body));      // appends what came of the body
//   if (reader.is_done()) ...                    // or PENSTOCK_TRY(reader.finish(body)) at the end of the connection
//
// Threads  one
// Memory   a head of kHeadBytesMax, a chunk's line
// Errors   kIo: what the server sends is not HTTP, or more than kBodyBytesMax
// Source   RFC 9112; the grammar is Boost.Beast's
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock {

class ResponseReader {
 public:
  static constexpr uint32_t kHeadBytesMax = 64 << 10;
  static constexpr uint64_t kBodyBytesMax = 64 << 20;

  ResponseReader();
  ~ResponseReader();
  ResponseReader(const ResponseReader&) = delete;
  ResponseReader& operator=(const ResponseReader&) = delete;

  Result<void> push(std::string_view bytes, std::string& body);
  Result<void> finish(std::string& body);  // nothing more will come

  bool has_head() const;
  bool is_done() const;
  int status() const;                               // once has_head()
  std::string header(std::string_view name) const;  // empty: none

 private:
  struct Parts;
  void take_body(std::string& body);

  std::unique_ptr<Parts> parts_;
  std::string held_;  // begun, not yet understood
};

}  // namespace penstock
