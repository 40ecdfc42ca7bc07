// Whose turn it is to take memory. Engines of one machine, or of one container, that start or grow
// at the same moment would each see the same free memory, and take more than there is together.
//
// The turn is a lock on /proc/meminfo, the file that says what is left: all programs of a container
// see the same one, nobody has to make or remove a file, and the kernel ends the turn of a program
// that was killed. Where it cannot be locked there are no turns.
//
//   const auto turn = MemoryTurn::take(std::chrono::seconds(60));
//   ... look at what is left, and take it ...
//
// Threads  a value of one thread
// Errors   none: no turn is an answer; the caller goes on more carefully or later
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>

namespace penstock {

class MemoryTurn {
 public:
  // Nothing when another program kept it for so long, or when there are no turns here.
  static std::optional<MemoryTurn> take(std::chrono::nanoseconds patience,
                                        const std::string& path = "/proc/meminfo");

  ~MemoryTurn();
  MemoryTurn(MemoryTurn&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  MemoryTurn& operator=(MemoryTurn&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

 private:
  explicit MemoryTurn(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

}  // namespace penstock
