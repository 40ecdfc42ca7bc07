#include "host/memory_turn.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

namespace penstock {
namespace {

using namespace std::chrono_literals;

class Turns : public testing::Test {
 protected:
  void SetUp() override { std::ofstream(path_) << "x"; }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ = testing::TempDir() + "/penstock-memory-turn";
};

TEST_F(Turns, are_of_one_at_a_time) {
  auto first = MemoryTurn::take(0ns, path_);
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(MemoryTurn::take(20ms, path_).has_value());
  first.reset();
  EXPECT_TRUE(MemoryTurn::take(0ns, path_).has_value());
}

TEST_F(Turns, come_to_who_waits) {
  auto first = MemoryTurn::take(0ns, path_);
  std::jthread ends([&] {
    std::this_thread::sleep_for(50ms);
    first.reset();
  });
  EXPECT_TRUE(MemoryTurn::take(60s, path_).has_value());
}

TEST_F(Turns, survive_being_moved) {
  auto first = MemoryTurn::take(0ns, path_);
  auto second = std::move(*first);
  first.reset();
  EXPECT_FALSE(MemoryTurn::take(0ns, path_).has_value());
}

TEST_F(Turns, are_none_where_there_is_no_file) {
  EXPECT_FALSE(MemoryTurn::take(60s, path_ + ".not").has_value());
}

TEST(TurnOfThisMachine, is_one_where_the_kernel_has_such_a_file) {
  if (!std::filesystem::exists("/proc/meminfo")) GTEST_SKIP() << "no /proc/meminfo";
  auto turn = MemoryTurn::take(60s);
  ASSERT_TRUE(turn.has_value());
  EXPECT_FALSE(MemoryTurn::take(0ns).has_value());
}

}  // namespace
}  // namespace penstock
