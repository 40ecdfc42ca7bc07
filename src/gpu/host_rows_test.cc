// Every row is moved once, whoever moves it.
#include "gpu/host_rows.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace penstock {
namespace {

TEST(HostRows, each_is_moved_once_by_one_thread_or_a_team) {
  ThreadPool team(3);
  for (ThreadPool* by : {static_cast<ThreadPool*>(nullptr), &team}) {
    for (const int64_t count : {0, 1, 7, 300, 1001}) {
      for (const uint64_t bytes : {uint64_t{0}, uint64_t{40}, uint64_t{9000}, uint64_t{1} << 20}) {
        std::vector<std::atomic<int>> moved(static_cast<size_t>(count));
        HostRows(by).each(count, bytes, [&](int64_t r) { ++moved[static_cast<size_t>(r)]; });
        for (const std::atomic<int>& times : moved) EXPECT_EQ(times.load(), 1) << count << bytes;
      }
    }
  }
}

}  // namespace
}  // namespace penstock
