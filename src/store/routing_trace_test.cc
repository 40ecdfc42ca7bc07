#include "store/routing_trace.h"

#include <gtest/gtest.h>

#include "support/sim_storage.h"

namespace penstock {
namespace {

RoutingTrace example() {
  RoutingTrace trace(3, 600);
  trace.begin_sequence();
  trace.add(0, std::vector<int32_t>{5, 1, 599});
  trace.add(2, std::vector<int32_t>{});
  trace.begin_step();
  trace.add(0, std::vector<int32_t>{7});
  trace.begin_sequence();
  trace.add(1, std::vector<int32_t>{9});
  return trace;
}

TEST(RoutingTrace, tells_events_steps_and_sequences) {
  const RoutingTrace trace = example();
  const auto events = trace.events();
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].step, 0);
  EXPECT_EQ(events[0].experts[2], 599);
  EXPECT_TRUE(events[1].experts.empty());
  EXPECT_EQ(events[2].step, 1);
  EXPECT_EQ(events[2].sequence, 0);
  EXPECT_EQ(events[3].step, 2);
  EXPECT_EQ(events[3].sequence, 1);
  EXPECT_EQ(events[3].layer, 1);
}

TEST(RoutingTrace, is_read_as_it_was_written) {
  SimStorage disk;
  example().write(disk, "/trace").value();
  const RoutingTrace read = *RoutingTrace::read(disk, "/trace");
  EXPECT_EQ(read.num_layers(), 3);
  EXPECT_EQ(read.num_experts(), 600);
  const RoutingTrace written = example();
  const auto a = written.events();
  const auto b = read.events();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].layer, b[i].layer);
    EXPECT_EQ(a[i].step, b[i].step);
    EXPECT_TRUE(std::equal(a[i].experts.begin(), a[i].experts.end(), b[i].experts.begin(),
                           b[i].experts.end()));
  }
}

TEST(RoutingTrace, any_flipped_bit_or_lost_byte_is_corrupt) {
  SimStorage disk;
  example().write(disk, "/trace").value();
  const uint64_t bytes = disk.stat("/trace")->bytes;
  for (uint64_t bit = 0; bit < bytes * 8; ++bit) {
    disk.flip_stored_bit("/trace", bit);
    const auto read = RoutingTrace::read(disk, "/trace");
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
    disk.flip_stored_bit("/trace", bit);
  }
  ASSERT_TRUE(RoutingTrace::read(disk, "/trace").has_value());
  for (uint64_t kept = 0; kept < bytes; ++kept) {
    example().write(disk, "/trace").value();
    disk.truncate("/trace", kept);
    EXPECT_FALSE(RoutingTrace::read(disk, "/trace").has_value());
  }
  EXPECT_EQ(RoutingTrace::read(disk, "/none").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace penstock
