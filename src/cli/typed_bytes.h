// Bytes that somebody types, one at a time, and what of them came as one.
//
// Threads  one
// Memory   a small buffer
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace penstock {

enum class Arrived : uint8_t { kByte, kInterrupt, kEnd };

class TypedBytes {
 public:
  virtual ~TypedBytes() = default;

  // Whether `text` comes next; then it is taken. What a terminal sends as one comes at once, so the
  // rest of it is waited for a moment only.
  bool take(std::string_view text);

  // The next byte, if it comes at once, as the rest of what a key sends does.
  std::optional<char> next_at_once();

  // Waits until there is a byte.
  Arrived wait() { return position_ < end_ ? Arrived::kByte : refill(); }

  Arrived next(char& byte);

  // The byte that next() has just given comes again.
  void put_back() { --position_; }

 protected:
  enum class Patience : uint8_t { kAMoment, kAnyTime };

  // Puts what has come into `room` and sets `got`: at least one byte when it answers kByte, but for
  // kAMoment, where nothing may have come.
  virtual Arrived fill(std::span<char> room, Patience patience, size_t& got) = 0;

 private:
  Arrived refill();

  char buffer_[4096];
  size_t position_ = 0;
  size_t end_ = 0;
};

}  // namespace penstock
