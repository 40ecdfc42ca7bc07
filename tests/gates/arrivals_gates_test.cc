// Slots whose memory comes while the engine is at work (G31), at any pace and not all of them.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/memory.h"
#include "dialogue/warm_start.h"
#include "gates/gate.h"
#include "io/storage.h"

namespace penstock::test {
namespace {

constexpr uint64_t kPlenty = 1ull << 40;

// The thread that makes pages present asks before each piece what is left of the memory, and waits here
// until it may.
struct Gatekeeper {
  const std::thread::id computing = std::this_thread::get_id();
  std::atomic<bool> is_open = false;
  std::atomic<uint64_t> available = kPlenty;

  void let(EngineOptions& options) {
    options.slots_come_later_from = 0;
    options.memory_watch = {.is_on = true,
                            .every = std::chrono::nanoseconds(0),
                            .quiet = std::chrono::nanoseconds(0),
                            .probe = [this]() -> Result<MemoryReading> {
                              if (std::this_thread::get_id() != computing) is_open.wait(false);
                              return MemoryReading{.available_bytes = available.load(),
                                                   .limit_bytes = kPlenty};
                            }};
  }
  void open() {
    is_open = true;
    is_open.notify_all();
  }
  // After some time, beside what the caller does meanwhile.
  std::jthread open_after(std::chrono::microseconds delay) {
    return std::jthread([this, delay] {
      std::this_thread::sleep_for(delay);
      open();
    });
  }
};

class ArrivalsGate : public Gate {
 protected:
  EngineOptions held_by(Gatekeeper& keeper) const {
    EngineOptions with = options();
    with.reader_factory = [] { return fake_reader(5, nullptr); };
    keeper.let(with);
    return with;
  }
};

INSTANTIATE_TEST_SUITE_P(Models, ArrivalsGate, ::testing::ValuesIn(kModels), name_of_gate);

TEST_P(ArrivalsGate, g31_slots_come_at_any_time) {
  for (const int64_t chunk : {1, 16}) {
    for (const int delay_us : {0, 100, 1'000, 4'000, 20'000}) {
      Gatekeeper keeper;
      EngineOptions with = held_by(keeper);
      with.chunk_tokens = chunk;
      const auto engine = open_engine(with);
      const std::jthread opener = keeper.open_after(std::chrono::microseconds(delay_us));
      EXPECT_TRUE(answer_of(*engine, GetParam().prompt_tokens) == resident())
          << delay_us << " us, chunks of " << chunk;
      engine->wait_for_slots();
      EXPECT_FALSE(engine->slots_are_coming());
      EXPECT_EQ(engine->experts().num_slots(), engine->plan().num_slots);
      EXPECT_TRUE(answer_of(*engine, GetParam().prompt_tokens) == resident());
      EXPECT_EQ(engine->take_news(), "");
    }
  }
}

TEST_P(ArrivalsGate, g31_what_has_not_come_is_done_without) {
  Gatekeeper keeper;
  const auto engine = open_engine(held_by(keeper));
  EXPECT_TRUE(answer_of(*engine, GetParam().prompt_tokens) == resident());
  EXPECT_TRUE(engine->slots_are_coming());
  EXPECT_EQ(engine->experts().num_slots(), engine->plan().floor_slots);
  EXPECT_LT(engine->plan().floor_slots, engine->plan().num_slots);
  EXPECT_GT(engine->experts().stats().evictions, 0u);
  keeper.open();
}

TEST_P(ArrivalsGate, g31_memory_that_is_refused_or_needed_by_others_ends_them) {
  for (const bool is_refused : {true, false}) {
    Gatekeeper keeper;
    const auto engine = open_engine(held_by(keeper));
    const auto floor = static_cast<int>(engine->plan().floor_slots);
    if (is_refused) {
      fail_allocation_after(0);
    } else {
      keeper.available = 0;
    }
    keeper.open();
    while (engine->slots_are_coming()) engine->wait_for_slots();
    fail_allocation_after(-1);
    const std::string news = engine->take_news();
    EXPECT_NE(news.find("memory is short: " + std::to_string(floor) + " of "), std::string::npos)
        << news;
    EXPECT_EQ(engine->take_news(), "");
    EXPECT_TRUE(answer_of(*engine, GetParam().prompt_tokens) == resident()) << is_refused;
    if (!is_refused) {
      EXPECT_EQ(engine->experts().num_slots(), floor);
    }
    // The watch takes them when there is room again.
    keeper.available = kPlenty;
    // (When it has the turn: other engines of this machine may be starting.)
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (engine->experts().num_slots() < engine->plan().num_slots &&
           std::chrono::steady_clock::now() < end) {
      engine->watch_memory();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(engine->experts().num_slots(), engine->plan().num_slots);
    EXPECT_TRUE(answer_of(*engine, GetParam().prompt_tokens) == resident()) << is_refused;
  }
}

TEST_P(ArrivalsGate, g31_an_engine_may_end_before_they_have_come) {
  for (const int delay_us : {0, 3'000}) {
    Gatekeeper keeper;
    auto engine = open_engine(held_by(keeper));
    const std::jthread opener = keeper.open_after(std::chrono::microseconds(delay_us));
    engine.reset();
  }
}

TEST_P(ArrivalsGate, g31_a_warm_start_reads_into_all_that_come) {
  EngineOptions with = options();
  const std::string usage = temporary_folder() + "/usage";
  {
    const auto earlier = open_engine(with);
    WarmStart warm(*earlier, posix_storage(), usage);
    ASSERT_EQ(value_of(warm.load()), 0u);
    answer_of(*earlier, GetParam().prompt_tokens);
    ASSERT_TRUE(warm.save().has_value());
  }
  Gatekeeper keeper;
  const auto engine = open_engine(held_by(keeper));
  WarmStart warm(*engine, posix_storage(), usage);
  const size_t experts = value_of(warm.load());
  ASSERT_GT(experts, static_cast<size_t>(engine->plan().floor_slots));
  EXPECT_EQ(warm.num_wanted(), experts);
  EXPECT_TRUE(warm.read_more());
  EXPECT_EQ(warm.report().experts, 0u);
  keeper.open();
  while (warm.read_more()) {
  }
  EXPECT_EQ(warm.report().experts, experts);
  EXPECT_TRUE(answer_of(*engine, GetParam().prompt_tokens) == resident());
}

}  // namespace
}  // namespace penstock::test
