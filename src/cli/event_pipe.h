// An event that a signal handler may raise and poll() may wait for: a pipe with a byte in it. Plain
// POSIX, where Linux has eventfd and others have not.
//
// Threads  any number raise; one waits and clears
// Errors   open(): kIo (no descriptors left)
#pragma once

#include "base/result.h"

namespace penstock {

class EventPipe {
 public:
  static Result<EventPipe> open();
  EventPipe(EventPipe&& other) noexcept;
  EventPipe& operator=(EventPipe&&) = delete;
  ~EventPipe();

  void raise() const { raise_at(raising_end_); }
  void wait() const;   // until it is raised; it is cleared then
  void clear() const;  // at once, whether it was raised or not

  // Readable while the event is raised.
  int descriptor() const { return waiting_end_; }

  // For a signal handler, which may touch next to nothing: raises the event of this descriptor.
  int raising_end() const { return raising_end_; }
  static void raise_at(int raising_end);

 private:
  EventPipe(int waiting_end, int raising_end)
      : waiting_end_(waiting_end), raising_end_(raising_end) {}

  int waiting_end_;
  int raising_end_;
};

}  // namespace penstock
