#include "cli/typed_bytes.h"

#include <algorithm>
#include <cstring>

namespace penstock {

bool TypedBytes::take(std::string_view text) {
  for (;;) {
    const size_t have = std::min(end_ - position_, text.size());
    if (have == 0) return false;
    if (text.substr(0, have) != std::string_view(buffer_ + position_, have)) return false;
    if (have == text.size()) break;
    std::memmove(buffer_, buffer_ + position_, end_ - position_);
    end_ -= position_;
    position_ = 0;
    size_t got = 0;
    const Arrived arrived =
        fill(std::span(buffer_ + end_, sizeof buffer_ - end_), Patience::kAMoment, got);
    if (arrived != Arrived::kByte || got == 0) return false;
    end_ += got;
  }
  position_ += text.size();
  return true;
}

std::optional<char> TypedBytes::next_at_once() {
  if (position_ == end_) {
    position_ = end_ = 0;
    if (fill(buffer_, Patience::kAMoment, end_) != Arrived::kByte || end_ == 0) return std::nullopt;
  }
  return buffer_[position_++];
}

Arrived TypedBytes::next(char& byte) {
  const Arrived arrived = wait();
  if (arrived == Arrived::kByte) byte = buffer_[position_++];
  return arrived;
}

Arrived TypedBytes::refill() {
  position_ = end_ = 0;
  return fill(buffer_, Patience::kAnyTime, end_);
}

}  // namespace penstock
