#include "engine/memory_room.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/test_sizes.h"
#include "host/memory_limits.h"

namespace penstock {
namespace {

using test::kMiB;

// A container with an engine in it that has slots to give, as its watch would: when less than its
// reserve is left, it makes it one and a half.
struct Container {
  uint64_t limit = 500 * kMiB;
  uint64_t neighbour = 480 * kMiB;
  uint64_t neighbour_floor = 40 * kMiB;
  uint64_t held = 0;
  uint64_t held_most = 0;
  uint64_t left_least = 500 * kMiB;
  bool is_hard = true;
  int looks = 0;
  std::vector<std::string> told = {};

  uint64_t left() const { return limit - neighbour - held; }

  Result<void> make_room(uint64_t bytes, int looks_max = 100) {
    return penstock::make_room(bytes,
                               {.probe = [this]() -> Result<MemoryAvailability> {
                                  ++looks;
                                  const MemoryAvailability reading{.available_bytes = left(),
                                                                   .limit_bytes = limit,
                                                                   .binding = "memory.max of /box",
                                                                   .is_hard_limit = is_hard};
                                  constexpr uint64_t kReserve = 16 * kMiB;
                                  if (looks % 10 == 0 && left() < kReserve) {
                                    const uint64_t short_of = kReserve + kReserve / 2 - left();
                                    neighbour -= std::min(short_of, neighbour - neighbour_floor);
                                  }
                                  return reading;
                                },
                                .tell = [this](const std::string& text) { told.push_back(text); },
                                .between_looks = std::chrono::nanoseconds(0),
                                .looks_max = looks_max,
                                .hold =
                                    [this](uint64_t all) {
                                      held = all;
                                      held_most = std::max(held_most, held);
                                      left_least = std::min(left_least, left());
                                      return true;
                                    }});
  }
};

TEST(MakeRoom, takes_nothing_where_there_is_enough) {
  Container box{.neighbour = 100 * kMiB};
  EXPECT_TRUE(box.make_room(300 * kMiB).has_value());
  EXPECT_EQ(box.looks, 1);
  EXPECT_EQ(box.held_most, 0u);
}

TEST(MakeRoom, neighbours_give_back_step_by_step_and_the_limit_is_never_near) {
  for (const uint64_t bytes : {20 * kMiB, 41 * kMiB, 200 * kMiB, 440 * kMiB}) {
    Container box;
    const auto made = box.make_room(bytes);
    ASSERT_TRUE(made.has_value()) << made.error().message;
    EXPECT_GE(box.left() + box.held, bytes) << bytes / kMiB;
    EXPECT_GE(box.left_least, 8 * kMiB) << bytes / kMiB;
    EXPECT_GE(box.neighbour, box.neighbour_floor);
  }
}

TEST(MakeRoom, what_nobody_can_give_is_an_error_with_the_numbers) {
  Container box{.neighbour_floor = 300 * kMiB};
  const auto made = box.make_room(250 * kMiB);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code, ErrorCode::kOutOfMemory);
  for (const char* part : {"MiB", "memory.max of /box", "raise that limit"}) {
    EXPECT_NE(made.error().message.find(part), std::string::npos) << made.error().message;
  }
  EXPECT_EQ(box.told.size(), 1u);
  EXPECT_GE(box.left_least, 8 * kMiB);
}

TEST(MakeRoom, a_limit_that_does_not_kill_is_no_reason_to_refuse) {
  Container box{.neighbour_floor = 300 * kMiB, .is_hard = false};
  EXPECT_TRUE(box.make_room(250 * kMiB).has_value());
}

TEST(MakeRoom, a_container_that_fits_exactly_is_enough) {
  Container box{.limit = 100 * kMiB, .neighbour = 60 * kMiB, .neighbour_floor = 60 * kMiB};
  EXPECT_TRUE(box.make_room(40 * kMiB).has_value());
  EXPECT_TRUE(box.told.empty());
}

TEST(MakeRoom, real_pages_are_held_and_given_back) {
  uint64_t seen_least = UINT64_MAX;
  const uint64_t before = resident_bytes();
  constexpr uint64_t kBytes = 64 * kMiB;
  const auto made = make_room(
      kBytes, {.probe = [&]() -> Result<MemoryAvailability> {
                 const uint64_t held = resident_bytes() - std::min(before, resident_bytes());
                 // 40 MiB are free; the rest is given when the pages are seen to be missing.
                 const uint64_t free = (held < 16 * kMiB ? 40 : 80) * kMiB;
                 seen_least = std::min(seen_least, free - std::min(free, held));
                 return MemoryAvailability{.available_bytes = free - std::min(free, held),
                                           .limit_bytes = 100 * kMiB,
                                           .binding = "a test",
                                           .is_hard_limit = true};
               },
               .between_looks = std::chrono::nanoseconds(0)});
  EXPECT_TRUE(made.has_value());
  EXPECT_LT(seen_least, 40 * kMiB);
  EXPECT_LT(resident_bytes(), before + kBytes / 2);
}

}  // namespace
}  // namespace penstock
