// Cuts one block of memory into the working arrays of the ops.
//
// The same code that hands out the arrays also measures them: with no block behind it, a cursor
// hands out null pointers and only counts. So the bytes that a plan promises are the bytes used.
//
// Memory  owns nothing; every array starts at a multiple of 64 bytes from the start of the block
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"

namespace penstock {

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

class ScratchCursor {
 public:
  ScratchCursor() = default;  // only measures
  explicit ScratchCursor(std::span<std::byte> block) : block_(block) {}

  template <class T>
  T* take(int64_t count) {
    const int64_t start = bytes_;
    bytes_ += ceil_div(count * static_cast<int64_t>(sizeof(T)), 64) * 64;
    if (block_.data() == nullptr) return nullptr;
    PENSTOCK_CHECK(bytes_ <= std::ssize(block_));
    return reinterpret_cast<T*>(block_.data() + start);
  }

  int64_t bytes() const { return bytes_; }

 private:
  std::span<std::byte> block_;
  int64_t bytes_ = 0;
};

}  // namespace penstock
