#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "base/byte_cursor.h"
#include "base/json.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/thread_pool.h"

namespace penstock {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error{ErrorCode::kInvalidArgument, "odd"};
  return value / 2;
}

Result<int> quarter(int value) {
  const int once = PENSTOCK_TRY(half(value));
  return PENSTOCK_TRY(half(once));
}

TEST(Result, try_returns_the_first_error) {
  EXPECT_EQ(*quarter(12), 3);
  ASSERT_FALSE(quarter(6).has_value());
  EXPECT_EQ(quarter(6).error().message, "odd");
  EXPECT_EQ(quarter(6).error().with_context("six").message, "six: odd");
}

TEST(ByteCursor, reading_past_the_end_fails_and_stays_failed) {
  const std::vector<std::byte> bytes(6, std::byte{1});
  ByteCursor cursor(bytes);
  EXPECT_EQ(cursor.read<uint32_t>(), 0x01010101u);
  cursor.read<uint32_t>();
  EXPECT_FALSE(cursor.ok());
  cursor.read<uint8_t>();
  EXPECT_FALSE(cursor.ok());
}

TEST(CheckedArithmetic, refuses_what_64_bits_do_not_hold) {
  EXPECT_FALSE(checked_multiply(uint64_t{1} << 33, uint64_t{1} << 33).has_value());
  EXPECT_FALSE(checked_add(UINT64_MAX, 1).has_value());
  EXPECT_EQ(*checked_multiply(3, 5), 15u);
}

TEST(Json, keeps_key_order_and_refuses_what_the_library_would_take) {
  EXPECT_EQ(to_text(*parse_json(R"({"b":1,"a":[true,null,"x"]})", "t")),
            R"({"b":1,"a":[true,null,"x"]})");
  EXPECT_FALSE(parse_json(R"({"a":1,"a":2})", "t").has_value());
  EXPECT_FALSE(parse_json("{\"a\":1} x", "t").has_value());
  EXPECT_FALSE(parse_json("1e999", "t").has_value());
  EXPECT_FALSE(parse_json("\"\xff\"", "t").has_value());
  EXPECT_FALSE(parse_json("", "t").has_value());
  EXPECT_FALSE(parse_json(std::string(1000000, '['), "t").has_value());
  const std::string deep = std::string(128, '[') + std::string(128, ']');
  EXPECT_TRUE(parse_json(deep, "t").has_value());
  EXPECT_FALSE(parse_json("[" + deep + "]", "t").has_value());
}

TEST(Json, prints_like_python) {
  const Json json = *parse_json(R"({"a":[1,2.5,{"b":"ü\"\n"}],"c":{}})", "t");
  EXPECT_EQ(to_python_text(json), "{\"a\": [1, 2.5, {\"b\": \"ü\\\"\\n\"}], \"c\": {}}");
}

TEST(Json, field_errors_name_the_key) {
  const Json json = *parse_json(R"({"n":7,"s":"x","big":18446744073709551615})", "t");
  EXPECT_EQ(*json_int(json, "n", "config", 0, 10), 7);
  EXPECT_NE(json_int(json, "n", "config", 0, 5).error().message.find("\"n\" is 7"),
            std::string::npos);
  EXPECT_FALSE(json_int(json, "big", "config", 0, INT64_MAX).has_value());
  EXPECT_NE(json_int(json, "s", "config", 0, 5).error().message.find("\"s\""), std::string::npos);
  EXPECT_EQ(json_int(json, "absent", "config", 0, 5).error().code, ErrorCode::kNotFound);
}

// A worker that comes from its last loop when the pool is ending has to end, too, and not to sleep
// for one more loop. It is kept awake, so that it is at any place when the end comes.
TEST(ThreadPool, ends_wherever_its_workers_are) {
  constexpr int kPools = 1000;
  for (int i = 0; i < kPools; ++i) {
    ThreadPool pool(2);
    std::atomic<bool> is_awake{false};
    for (int loop = 0; loop < 2000 && !is_awake; ++loop) {
      pool.run(2, [&](int64_t, int worker) {
        if (worker == 1) is_awake = true;
        for (int spin = 0; spin < 2000 && !is_awake; ++spin) is_awake.load();
      });
    }
    pool.run(2, [](int64_t, int) {});
    for (int pause = 0; pause < 8 * (i % 64); ++pause) is_awake.load();
  }
}

TEST(ThreadPool, runs_every_task_once_on_any_number_of_threads) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 300; ++round) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(round % 17));
      pool.run(std::ssize(calls), [&](int64_t task, int worker) {
        EXPECT_LT(worker, threads);
        ++calls[static_cast<size_t>(task)];
      });
      for (const auto& count : calls) EXPECT_EQ(count.load(), 1);
    }
  }
}

// As limits of tasks or of memory do: no room for a stack.
TEST(ThreadPool, threads_that_the_system_refuses_are_told_and_the_loop_still_runs) {
  pthread_attr_t kept, huge;
  ASSERT_EQ(pthread_getattr_default_np(&kept), 0);
  ASSERT_EQ(pthread_attr_init(&huge), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 47), 0);
  ASSERT_EQ(pthread_setattr_default_np(&huge), 0);
  ThreadPool pool(4);
  ASSERT_EQ(pthread_setattr_default_np(&kept), 0);
  EXPECT_EQ(pool.num_threads(), 1);
  const Result<void> checked = check_team(pool, 4);
  ASSERT_FALSE(checked.has_value());
  EXPECT_EQ(checked.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(checked.error().message.find("--threads"), std::string::npos);
  EXPECT_TRUE(check_team(pool, 1).has_value());
  std::atomic<int> calls = 0;
  pool.run(100, [&](int64_t, int) { ++calls; });
  EXPECT_EQ(calls, 100);
}

// Those who would soon sleep look on; loops and the end reach them either way.
TEST(ThreadPool, workers_that_are_kept_awake_do_their_loops_and_end) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(3, 1);
    std::atomic<int64_t> sum = 0;
    for (int loop = 0; loop < 20; ++loop) {
      pool.keep_awake(loop % 3 != 0);
      pool.run(10, [&](int64_t task, int) { sum += task; });
    }
    EXPECT_EQ(sum, 20 * 45);
    pool.keep_awake(round % 2 == 0);
  }
}

// The owner has nothing left to do while another's task still runs: that is counted, and only that.
TEST(ThreadPool, counts_how_long_the_owner_waits_for_the_last_task) {
  ThreadPool pool(2);
  std::atomic<int> present{0};
  std::atomic<bool> is_owner_done{false};
  for (int loop = 0; loop < 1000 && pool.ends_ns() == 0; ++loop) {
    present = 0;
    is_owner_done = false;
    pool.run(2, [&](int64_t, int worker) {
      ++present;
      while (present < 2) std::this_thread::yield();  // each has one task
      if (worker == 0) {
        is_owner_done = true;
      } else {
        while (!is_owner_done) std::this_thread::yield();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  }
  EXPECT_GT(pool.ends_ns(), 0);
  ThreadPool alone(1);
  alone.run(5, [](int64_t, int) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); });
  EXPECT_EQ(alone.ends_ns(), 0);
}

// Workers that sleep come late, or not at all: nothing of a loop may be left for them, and what
// they see of the next one must be whole.
TEST(ThreadPool, a_loop_ends_without_workers_that_sleep) {
  ThreadPool pool(8);
  for (int round = 0; round < 200; ++round) {
    if (round % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    // Gone when the loop has ended.
    std::vector<int> values(static_cast<size_t>(2 + round % 40), 0);
    pool.run(std::ssize(values),
             [&](int64_t task, int) { values[static_cast<size_t>(task)] = round; });
    for (const int value : values) EXPECT_EQ(value, round);
  }
}

TEST(ThreadPool, all_workers_wake_for_a_long_loop) {
  constexpr int kThreads = 6;
  ThreadPool pool(kThreads);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::atomic<int> present{0};
  // Each task waits until all threads have one: with a sleeper left it would not end.
  pool.run(kThreads, [&](int64_t, int) {
    ++present;
    while (present.load() < kThreads) std::this_thread::yield();
  });
  EXPECT_EQ(present.load(), kThreads);
}

TEST(Json, a_nul_byte_ends_no_text) {
  EXPECT_FALSE(parse_json(std::string_view("7777\0x", 6), "text"));
  EXPECT_FALSE(parse_json(std::string_view("{}\0", 3), "text"));
  EXPECT_TRUE(parse_json("{\"a\": \"\\u0000\"}", "text"));
}

}  // namespace
}  // namespace penstock
