#include "cli/event_pipe.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

namespace penstock {
namespace {

bool is_raised(const EventPipe& event) {
  pollfd waiting{event.descriptor(), POLLIN, 0};
  return ::poll(&waiting, 1, 0) == 1;
}

TEST(EventPipe, stays_raised_until_it_is_cleared) {
  const EventPipe event = EventPipe::open().value();
  EXPECT_FALSE(is_raised(event));
  event.raise();
  event.raise();
  EXPECT_TRUE(is_raised(event));
  event.clear();
  EXPECT_FALSE(is_raised(event));
  event.clear();  // waits for nothing
}

TEST(EventPipe, may_be_raised_more_often_than_a_pipe_holds_bytes) {
  const EventPipe event = EventPipe::open().value();
  for (int i = 0; i < 200'000; ++i) EventPipe::raise_at(event.raising_end());
  event.wait();
  EXPECT_FALSE(is_raised(event));
}

TEST(EventPipe, wakes_the_thread_that_waits) {
  const EventPipe event = EventPipe::open().value();
  const std::jthread other([&] { event.raise(); });
  event.wait();
  EXPECT_FALSE(is_raised(event));
}

}  // namespace
}  // namespace penstock
