#include "engine/memory_watch.h"

#include <gtest/gtest.h>

#include "engine/test_sizes.h"

namespace penstock {
namespace {

using test::kGiB;
using test::kMiB;

using namespace std::chrono_literals;

constexpr SlotLimits kLimits = {.floor = 80, .full = 1600, .slot_bytes = 2 * kMiB};
constexpr uint64_t kReserve = 128 * kMiB;

int wanted(uint64_t available, int slots, bool is_quiet, double stalled = 0) {
  return slots_wanted({.available_bytes = available, .limit_bytes = 0, .stalled_share = stalled},
                      kReserve, kLimits, slots, is_quiet);
}

TEST(MemoryReserve, is_half_of_what_is_spare_within_bounds) {
  EXPECT_EQ(memory_reserve(64 * kMiB, 4 * kGiB), 32 * kMiB);  // a cgroup of budget + 64 MiB
  EXPECT_EQ(memory_reserve(0, 4 * kGiB), 16 * kMiB);
  EXPECT_EQ(memory_reserve(2 * kGiB, 8 * kGiB), 128 * kMiB);
  EXPECT_EQ(memory_reserve(4 * kGiB, 64 * kGiB), 64 * kGiB / 100);
}

TEST(SlotsWanted, shrink_by_the_shortage_down_to_the_floor) {
  EXPECT_EQ(wanted(kReserve, 1000, false), 1000);
  EXPECT_EQ(wanted(kReserve - 1, 1000, false), 1000 - 33);  // to 192 MiB
  EXPECT_EQ(wanted(28 * kMiB, 1000, true), 1000 - 82);
  EXPECT_EQ(wanted(0, 1000, false), 1000 - 96);
  EXPECT_EQ(wanted(0, 100, false), 80);
  EXPECT_EQ(wanted(0, 80, false), 80);
  EXPECT_EQ(wanted(0, 7, false), 7);  // fewer than the floor: an experiment's own choice
}

TEST(SlotsWanted, grow_in_small_steps_when_it_was_quiet_and_room_remains) {
  EXPECT_EQ(wanted(4 * kGiB, 1000, false), 1000);
  EXPECT_EQ(wanted(4 * kGiB, 1000, true), 1100);
  EXPECT_EQ(wanted(212 * kMiB, 1000, true), 1010);  // leaves 192 MiB
  EXPECT_EQ(wanted(192 * kMiB, 1000, true), 1000);
  EXPECT_EQ(wanted(4 * kGiB, 1550, true), 1600);
  EXPECT_EQ(wanted(4 * kGiB, 1600, true), 1600);
}

TEST(SlotsWanted, count_the_reserve_twice_while_work_stalls) {
  EXPECT_EQ(wanted(200 * kMiB, 1000, true, 0.04), 1004);
  EXPECT_EQ(wanted(200 * kMiB, 1000, true, 0.2), 1000 - 92);  // to 384 MiB
}

// What is decided never makes the next decision go the other way, if nobody else does anything.
TEST(SlotsWanted, do_not_swing) {
  for (uint64_t available = 0; available < 2 * kGiB; available += 7 * kMiB) {
    int slots = 1000;
    uint64_t left = available;
    int last = 0;
    for (int look = 0; look < 40; ++look) {
      const int next = wanted(left, slots, true);
      const int change = next - slots;
      ASSERT_GE(change * last, 0) << available / kMiB << " MiB, look " << look;
      if (change != 0) last = change > 0 ? 1 : -1;
      left = static_cast<uint64_t>(static_cast<int64_t>(left) -
                                   change * static_cast<int64_t>(kLimits.slot_bytes));
      slots = next;
    }
  }
}

class Watch : public testing::Test {
 protected:
  // 1 GiB planned, of which `resident` is in use: 700 MiB are free, 200 of them spare.
  MemoryWatch make(uint64_t resident = 524 * kMiB) {
    MemoryWatchOptions options;
    options.probe = [this]() -> Result<MemoryReading> {
      ++probes_;
      if (fails_) return Error{ErrorCode::kIo, "no"};
      return reading_;
    };
    return MemoryWatch(options, kLimits, kGiB, resident);
  }

  MemoryReading reading_ = {
      .available_bytes = 700 * kMiB, .limit_bytes = 4 * kGiB, .stalled_share = 0};
  int probes_ = 0;
  bool fails_ = false;
  MemoryWatch::Clock::time_point now_ = MemoryWatch::Clock::now() + 1h;
};

TEST_F(Watch, what_is_planned_and_not_yet_in_use_is_no_spare_memory) {
  MemoryWatch watch = make();  // reserve: 100 MiB
  reading_.available_bytes = 101 * kMiB;
  EXPECT_FALSE(watch.look(1600, now_).has_value());
  reading_.available_bytes = 99 * kMiB;
  EXPECT_EQ(watch.look(1600, now_ += 1s), 1600 - 26);
}

TEST_F(Watch, looks_at_most_every_quarter_of_a_second) {
  MemoryWatch watch = make();
  const int before = probes_;
  watch.look(1600, now_);
  watch.look(1600, now_ + 249ms);
  EXPECT_EQ(probes_, before + 1);
  watch.look(1600, now_ + 250ms);
  EXPECT_EQ(probes_, before + 2);
}

TEST_F(Watch, lets_slots_come_back_ten_seconds_after_the_last_change) {
  MemoryWatch watch = make();
  reading_.available_bytes = 50 * kMiB;
  EXPECT_EQ(watch.look(1600, now_), 1550);
  reading_.available_bytes = kGiB;
  EXPECT_FALSE(watch.look(1550, now_ + 9900ms).has_value());
  EXPECT_EQ(watch.look(1400, now_ + 10200ms), 1500);
  EXPECT_FALSE(watch.look(1500, now_ + 11s).has_value());
  EXPECT_EQ(watch.look(1500, now_ + 20500ms), 1600);
}

TEST_F(Watch, stalls_and_shortage_at_the_floor_put_off_growth) {
  MemoryWatch watch = make();
  reading_.available_bytes = kMiB;
  EXPECT_FALSE(watch.look(80, now_).has_value());
  reading_ = {.available_bytes = kGiB, .limit_bytes = 4 * kGiB, .stalled_share = 0.3};
  EXPECT_FALSE(watch.look(80, now_ += 9s).has_value());
  reading_.stalled_share = 0;
  EXPECT_FALSE(watch.look(80, now_ + 9s).has_value());
  EXPECT_EQ(watch.look(80, now_ + 11s), 180);
}

TEST_F(Watch, a_probe_that_fails_changes_nothing) {
  MemoryWatch watch = make();
  fails_ = true;
  EXPECT_FALSE(watch.look(1600, now_).has_value());
  EXPECT_TRUE(watch.is_on());
  EXPECT_FALSE(make().is_on());  // it cannot even begin
}

TEST(MemoryOfThisMachine, can_be_read) {
  const auto reading = read_memory();
  if (!reading) GTEST_SKIP() << reading.error().message;
  EXPECT_GT(reading->limit_bytes, reading->available_bytes / 2);
}

}  // namespace
}  // namespace penstock
