// Moves rows within the host's memory, to and from what a device reads and writes there: by the team
// where it is worth waking.
//
// Threads  the team's owner
#pragma once

#include <algorithm>
#include <cstdint>

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

 private:
  // One thread copies so much while a team wakes.
  static constexpr int64_t kAlone = 256 << 10, kTaskBytes = 64 << 10;

  ThreadPool* team_;
};

}  // namespace penstock
