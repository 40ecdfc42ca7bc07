#include "cli/event_pipe.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "io/system_error.h"

namespace penstock {

Result<EventPipe> EventPipe::open() {
  int ends[2] = {-1, -1};
  if (::pipe(ends) != 0) return system_error("pipe", "for signals", errno);
  EventPipe made(ends[0], ends[1]);
  for (const int end : ends) {
    // Not waiting: a full pipe is an event that was raised, an empty one an event that was not.
    if (::fcntl(end, F_SETFD, FD_CLOEXEC) != 0 || ::fcntl(end, F_SETFL, O_NONBLOCK) != 0) {
      return system_error("set up a pipe", "for signals", errno);
    }
  }
  return made;
}

EventPipe::EventPipe(EventPipe&& other) noexcept
    : waiting_end_(std::exchange(other.waiting_end_, -1)),
      raising_end_(std::exchange(other.raising_end_, -1)) {}

EventPipe::~EventPipe() {
  if (waiting_end_ >= 0) ::close(waiting_end_);
  if (raising_end_ >= 0) ::close(raising_end_);
}

void EventPipe::raise_at(int raising_end) {
  const char byte = 0;
  static_cast<void>(!::write(raising_end, &byte, 1));
}

void EventPipe::wait() const {
  pollfd raised{waiting_end_, POLLIN, 0};
  while (::poll(&raised, 1, -1) <= 0) {
  }
  clear();
}

void EventPipe::clear() const {
  char bytes[256];
  while (::read(waiting_end_, bytes, sizeof bytes) > 0) {
  }
}

}  // namespace penstock
