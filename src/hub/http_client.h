// GETs over HTTP, several at a time, on the thread that waits for them.
//
// Redirects are followed here and not by libcurl, hop by hop, because the token may go to one origin
// only: that of the hub that was configured, and only where it is encrypted or stays on this machine.
// Nothing else of the user is sent: no cookies, no netrc, no referrer.
//
//   const int id = client.start({.url = url, .range = "0-99", .sink = &sink});
//   for (const HttpDone& done : PENSTOCK_TRY(client.wait(stop, 100ms))) …
//
// Threads  one
// Memory   libcurl's buffers; bodies go to the sinks piece by piece
// Limits   8 redirects; 20 s to connect; less than 1 KiB/s for 30 s is a broken connection
// Errors   create(): kOutOfMemory, kInvalidArgument. wait(): kCancelled
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "hub/response_head.h"

namespace penstock {

class HttpSink {
 public:
  virtual ~HttpSink() = default;
  // The head of an answer with status 200 or 206. `url`: after redirects. An Error ends the transfer.
  virtual Result<void> on_head(const ResponseHead& head, const std::string& url) = 0;
  virtual Result<void> on_body(std::span<const std::byte> bytes) = 0;
};

struct HttpGet {
  std::string url;
  std::string range;     // "0-99"; empty: all
  std::string if_range;  // an ETag; empty: none
  HttpSink* sink = nullptr;
};

struct HttpDone {
  int id = 0;
  ResponseHead head;  // of the last hop
  std::string url;    // of the last hop
  bool left_origin = false;
  std::string failure;           // of the connection; empty: the answer came to its end
  std::optional<Error> refusal;  // by the sink, or of a redirect

  bool is_good() const {
    return failure.empty() && !refusal && (head.status == 200 || head.status == 206);
  }
};

struct HubOptions {
  std::string endpoint = "https://huggingface.co";
  std::string token;      // empty: none
  std::string ca_bundle;  // a file of certificates; empty: the system's
  std::string agent = "penstock";
};

class HttpClient {
 public:
  static Result<std::unique_ptr<HttpClient>> create(HubOptions options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  const HubOptions& options() const;
  // Whether the token may go to the endpoint at all: not in the clear over a network.
  bool sends_token() const;

  int start(HttpGet get);
  void cancel(int id);
  // Moves bytes until something ended or the time is over.
  Result<std::vector<HttpDone>> wait(const std::stop_token& stop, std::chrono::milliseconds time);

 private:
  struct State;
  explicit HttpClient(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace penstock
