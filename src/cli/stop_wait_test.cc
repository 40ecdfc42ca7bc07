#include "cli/stop_wait.h"

#include <gtest/gtest.h>

#include <thread>

namespace penstock {
namespace {

using namespace std::chrono_literals;

TEST(StopWait, sees_a_stop_that_came_before_it) {
  std::stop_source what;
  what.request_stop();
  EXPECT_TRUE(wait_for_stop(what.get_token(), {}, 60s));
}

TEST(StopWait, ends_with_the_stop_the_end_of_its_thread_or_the_time) {
  for (int round = 0; round < 200; ++round) {  // the stop may come before, during or after
    std::stop_source what;
    std::jthread stops([&] { what.request_stop(); });
    EXPECT_TRUE(wait_for_stop(what.get_token(), {}, 60s));
  }
  std::stop_source what, quit;
  EXPECT_FALSE(wait_for_stop(what.get_token(), quit.get_token(), 1ms));
  std::jthread quits([&] { quit.request_stop(); });
  EXPECT_FALSE(wait_for_stop(what.get_token(), quit.get_token(), 60s));
}

}  // namespace
}  // namespace penstock
