// When a request that failed is made again, and what is said when it is not.
//
// Broken connections and faults of the server are tried again after waits that double, until several in
// a row have brought nothing new; a server that asks to wait (429, or 503 with Retry-After) is obeyed,
// 50 times in a row.
// What will not change by trying, such as a missing repository, ends at once with what to do.
//
// Threads  one
// Errors   failed(): kNotFound (404), kIo (refused, or given up), and those of the request itself
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "base/result.h"
#include "hub/http_client.h"
#include "hub/name.h"

namespace penstock {

// Whom the sentences are about.
struct HubSubject {
  HubName name;
  std::string revision;
  std::string endpoint;
  bool has_token = false;
};

// Why the hub will not answer a request that ended with `head`.
Error refusal_of(const ResponseHead& head, const HubSubject& subject, const std::string& what);

class Retries {
 public:
  using Clock = std::chrono::steady_clock;

  // `on_note` hears of waits that a person would wonder about.
  Retries(const HubSubject& subject, std::function<void(const std::string&)> on_note)
      : subject_(subject), on_note_(std::move(on_note)) {}

  // After a request for `what` that did not end well: an Error, or may_start() tells when to go on.
  Result<void> failed(const HttpDone& done, const std::string& what);

  void made_progress() { failures_ = waits_asked_ = 0; }
  bool may_start() const { return Clock::now() >= next_; }

 private:
  void wait(std::chrono::milliseconds time);

  HubSubject subject_;
  std::function<void(const std::string&)> on_note_;
  int failures_ = 0, waits_asked_ = 0;
  Clock::time_point next_;
};

}  // namespace penstock
