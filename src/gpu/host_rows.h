// Moves rows between the host's memory and what a device reads and writes (gpu_buffer.h: kInputs, kShared): by
// the team where it is worth waking.
//
// Threads  the team's owner
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/thread_pool.h"

namespace penstock {

class HostRows {
 public:
  // Without a team its caller does all.
  explicit HostRows(ThreadPool* team = nullptr) : team_(team) {}

  // Calls move(r) for each r below `count`, in any order, for rows of so many bytes.
  template <class Move>
  void each(int64_t count, uint64_t row_bytes, const Move& move) const {
    const auto bytes = static_cast<int64_t>(std::max<uint64_t>(row_bytes, 1));
    if (team_ == nullptr || count * bytes < kAlone) {
      for (int64_t r = 0; r < count; ++r) move(r);
      return;
    }
    const int64_t rows = std::max<int64_t>(1, kTaskBytes / bytes);
    team_->run((count + rows - 1) / rows, [&](int64_t task, int) {
      const int64_t end = std::min(count, (task + 1) * rows);
      for (int64_t r = task * rows; r < end; ++r) move(r);
    });
  }

  void copy(std::span<const std::byte> from, std::byte* to) const {
    const auto count = static_cast<int64_t>((from.size() + kPiece - 1) / kPiece);
    each(count, kPiece, [&](int64_t i) {
      const size_t at = static_cast<size_t>(i) * kPiece;
      std::memcpy(to + at, from.data() + at, std::min(kPiece, from.size() - at));
    });
  }

 private:
  static constexpr size_t kPiece = 32 << 10;  // of a copy by the team
  // One thread copies so much while a team wakes.
  static constexpr int64_t kAlone = 256 << 10, kTaskBytes = 64 << 10;

  ThreadPool* team_;
};

}  // namespace penstock
