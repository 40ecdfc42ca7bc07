#include "store/drives.h"

#include <gtest/gtest.h>

#include <array>
#include <queue>
#include <vector>

namespace penstock {
namespace {

constexpr int64_t kMs = 1'000'000;

// Reads of one size, so many in flight at a time, from drives that bring their reads one after the
// other at rates of their own.
class Simulation {
 public:
  explicit Simulation(std::vector<double> bytes_per_ns)
      : rates_(std::move(bytes_per_ns)),
        drives_(static_cast<int>(rates_.size())),
        free_at_ns_(rates_.size()) {}

  // How long it takes.
  int64_t read(int count, uint64_t bytes, int in_flight) {
    const int64_t begun_ns = now_ns_;
    for (int i = 0; i < count; ++i) {
      if (std::ssize(open_) == in_flight) end_next();
      ask(bytes);
    }
    while (!open_.empty()) end_next();
    return now_ns_ - begun_ns;
  }
  void set_rate(int drive, double rate) { rates_[static_cast<size_t>(drive)] = rate; }
  void pass(int64_t ns) { now_ns_ += ns; }
  uint64_t reads(int drive) const { return drives_.stats(drive).reads; }
  const Drives& drives() const { return drives_; }

 private:
  struct Open {
    int64_t end_ns;
    int drive;
    Drives::Asked asked;
    bool operator<(const Open& other) const { return end_ns > other.end_ns; }
  };

  void ask(uint64_t bytes) {
    const int drive = drives_.choose(bytes, 0, now_ns_);
    const auto i = static_cast<size_t>(drive);
    free_at_ns_[i] = std::max(free_at_ns_[i], now_ns_) +
                     static_cast<int64_t>(static_cast<double>(bytes) / rates_[i]);
    open_.push({free_at_ns_[i], drive, drives_.begin(drive, bytes, now_ns_)});
  }
  void end_next() {
    const Open open = open_.top();
    open_.pop();
    now_ns_ = std::max(now_ns_, open.end_ns);
    drives_.end(open.drive, open.asked, true, now_ns_);
  }

  std::vector<double> rates_;
  Drives drives_;
  std::vector<int64_t> free_at_ns_;
  std::priority_queue<Open> open_;
  int64_t now_ns_ = 1;
};

TEST(Drives, one_drive_is_always_the_one) {
  Drives drives(1);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(drives.choose(100, 1, i), 0);
    drives.end(0, drives.begin(0, 100, i), false, i + 1);
  }
}

TEST(Drives, equal_ones_share_the_reads) {
  Simulation simulation({1, 1});
  simulation.read(1000, 1 << 20, 16);
  EXPECT_NEAR(static_cast<double>(simulation.reads(0)), 500, 25);
}

TEST(Drives, what_is_faster_reads_more_and_both_end_together) {
  constexpr uint64_t kBytes = 1 << 20;
  for (const double slower : {0.5, 0.25, 0.1}) {
    Simulation simulation({1, slower});
    simulation.read(100, kBytes, 16);
    const int64_t took_ns = simulation.read(1000, kBytes, 16);
    const double least_ns = 1000 * static_cast<double>(kBytes) / (1 + slower);
    EXPECT_LT(static_cast<double>(took_ns), 1.06 * least_ns) << slower;
  }
}

// Few at a time: the slow one must not hold up a layer whose reads the fast one would have brought.
TEST(Drives, a_few_reads_are_never_slower_than_from_the_fastest_alone) {
  constexpr uint64_t kBytes = 1 << 20;
  Simulation simulation({0.05, 1});
  simulation.read(20, kBytes, 8);
  for (int layer = 0; layer < 50; ++layer) {
    EXPECT_LE(simulation.read(8, kBytes, 8), static_cast<int64_t>(8.01 * kBytes));
  }
}

TEST(Drives, one_that_was_slow_for_a_moment_is_found_again) {
  Simulation simulation({1, 0.001});
  simulation.read(50, 1 << 20, 8);
  simulation.set_rate(1, 1);
  simulation.pass(3000 * kMs);
  const uint64_t before = simulation.reads(1);
  simulation.read(1000, 1 << 20, 8);
  EXPECT_GT(simulation.reads(1) - before, 400u);
}

TEST(Drives, one_that_fails_rests_for_a_minute_and_then_has_one_try) {
  Drives drives(2);
  int64_t now_ns = 1;
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(drives.is_resting(1, now_ns));
    drives.end(1, drives.begin(1, 10, now_ns), false, now_ns);
  }
  EXPECT_TRUE(drives.is_resting(1, now_ns));
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(drives.choose(10, 0, now_ns), 0);
    drives.begin(0, 10, now_ns);
  }
  EXPECT_EQ(drives.choose(10, 1u << 0, now_ns), 1);  // the other one has been tried
  now_ns += 61'000 * kMs;
  EXPECT_EQ(drives.choose(10, 0, now_ns), 1);
  drives.end(1, drives.begin(1, 10, now_ns), false, now_ns);
  EXPECT_TRUE(drives.is_resting(1, now_ns));
  now_ns += 61'000 * kMs;
  drives.end(1, drives.begin(1, 10, now_ns), true, now_ns);
  drives.end(1, drives.begin(1, 10, now_ns), false, now_ns);
  EXPECT_FALSE(drives.is_resting(1, now_ns));
  EXPECT_EQ(drives.stats(1).failures, 5u);
  EXPECT_EQ(drives.stats(1).bytes, 10u);
}

}  // namespace
}  // namespace penstock
