#include "host/memory_turn.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

namespace penstock {

// The wait is made of looks, because nothing that waits in the kernel may have no end: who has the
// turn may have been stopped with Ctrl-Z.
std::optional<MemoryTurn> MemoryTurn::take(std::chrono::nanoseconds patience,
                                           const std::string& path) {
  constexpr std::chrono::milliseconds kBetween(3);
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return std::nullopt;
  const auto end = std::chrono::steady_clock::now() + patience;
  while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    const bool is_taken = errno == EWOULDBLOCK || errno == EINTR;
    if (!is_taken || std::chrono::steady_clock::now() >= end) {
      ::close(descriptor);
      return std::nullopt;
    }
    std::this_thread::sleep_for(kBetween);
  }
  return MemoryTurn(descriptor);
}

MemoryTurn::~MemoryTurn() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace penstock
