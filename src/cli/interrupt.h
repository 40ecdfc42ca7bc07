// Ctrl-C, SIGTERM and SIGHUP (a closed window) as a std::stop_token; or SIGHUP as a call.
//
// A signal handler may do next to nothing, and requesting a stop takes a lock; so the handler only
// counts and wakes a thread, and that thread requests. Work that does not end, because the system
// holds it (a disk, a pipe), is ended by that thread after some seconds, as a power cut would.
//
//   interrupt->set_policy(Interrupt::Policy::kStop);
//   work(interrupt->token());
//   interrupt->begin();                  // an interactive program: what was, is over
//
// Threads  all calls from one thread
// Limits   one per program at a time: the handler finds it through a global
// Errors   install(): kIo (no descriptors left), kOutOfMemory (no thread)
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>

#include "base/result.h"
#include "cli/event_pipe.h"

namespace penstock {

class Interrupt {
 public:
  enum class Policy {
    kExit,     // end at once with 130: while there is nothing to tidy up
    kStop,     // request a stop; the second signal ends the program at once
    kPatient,  // request a stop, as often as asked: an interactive program stays
  };

  static Result<std::unique_ptr<Interrupt>> install();  // with kExit
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  void set_policy(Policy policy);

  // Stopped by the first signal since begin(), or since the program started.
  std::stop_token token();

  // What SIGHUP does from now on, on a thread of its own, instead of ending the program. Returns
  // when what was set before is not running any more.
  void set_hangup(std::function<void()> on_hangup);

  // Forgets earlier interrupts: tokens from now on are fresh.
  void begin();

  // The same as a signal: when nobody reads the output any more.
  void stop();

  bool was_terminated() const;                              // SIGTERM or SIGHUP, ever
  int descriptor() const { return noticed_.descriptor(); }  // readable once token() was stopped

 private:
  Interrupt(EventPipe wake, EventPipe noticed);
  void watch(std::stop_token quit);
  void request();

  EventPipe wake_;     // raised by the handler for the watching thread
  EventPipe noticed_;  // raised by the watching thread for whoever polls
  std::mutex mutex_;
  std::stop_source source_;  // guarded by mutex_
  std::mutex hangup_mutex_;
  std::function<void()> on_hangup_;  // guarded by hangup_mutex_
  std::jthread watcher_;
};

}  // namespace penstock
