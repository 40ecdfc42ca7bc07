#include "cli/output.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "io/system_error.h"

namespace penstock {

bool Output::write(std::string_view text) {
  while (!text.empty() && is_usable()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EPIPE) {
      closed_ = true;
    } else if (errno == EAGAIN) {
      // Whoever shares this descriptor has made it non-blocking.
      pollfd writable{STDOUT_FILENO, POLLOUT, 0};
      static_cast<void>(::poll(&writable, 1, -1));
    } else if (errno != EINTR) {
      failure_ = system_error("writing", "to standard output", errno);
    }
  }
  return is_usable();
}

bool Output::write_line(const Json& json) {
  return write(to_text(json) + '\n');
}

}  // namespace penstock
