// What a store does at rest: reads before anybody asks, and changes its number of slots.

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "base/memory.h"
#include "io/readers.h"
#include "store/expert_store.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"

namespace penstock {
namespace {

using namespace std::chrono_literals;

class AtRest : public testing::Test {
 protected:
  std::unique_ptr<ExpertStore> make(int num_slots, uint64_t seed = 5) {
    return *ExpertStore::create(
        experts_.table(),
        std::make_unique<FakeReader>(FakeReaderOptions{.seed = seed, .depth = 8}, &faults_),
        {.num_slots = num_slots});
  }
  static void read_all(ExpertStore& store) {
    while (store.preload_more(1ms)) {
    }
  }

  SimStorage disk_{23};
  TestExperts experts_{disk_, "/experts"};
  FakeFaults faults_;
};

TEST_F(AtRest, preloaded_experts_are_hits_and_cost_no_other_read) {
  const auto store = make(20);
  store->preload({{0, 1}, {0, 4}, {2, 7}});
  read_all(*store);
  EXPECT_EQ(store->preloaded().experts, 3u);
  EXPECT_EQ(store->stats().reads, 6u);
  ASSERT_TRUE(run_layer(*store, 0, {1, 4, 5}).has_value());
  ASSERT_TRUE(run_layer(*store, 2, {7}).has_value());
  EXPECT_EQ(store->stats().hits, 3u);
  EXPECT_EQ(store->stats().reads, 8u);
}

TEST_F(AtRest, a_preload_takes_free_slots_only_the_most_wanted_first) {
  const auto store = make(4);
  ASSERT_TRUE(run_layer(*store, 3, {0, 1}).has_value());
  store->preload({{3, 0}, {1, 1}, {1, 2}, {1, 3}});
  EXPECT_EQ(store->preloaded().wanted, 2u);
  read_all(*store);
  EXPECT_EQ(store->preloaded().experts, 2u);
  EXPECT_EQ(store->stats().evictions, 0u);
  ASSERT_TRUE(run_layer(*store, 1, {1, 2}).has_value());
  ASSERT_TRUE(run_layer(*store, 3, {0, 1}).has_value());
  EXPECT_EQ(store->stats().hits, 4u);
}

TEST_F(AtRest, what_cannot_be_preloaded_is_left_out_and_reported) {
  for (const uint64_t nth : {0ull, 1ull, 5ull}) {
    FakeFaults faults;
    faults.fail_read(nth, EIO, Lasting::kForGood);
    const auto store = *ExpertStore::create(
        experts_.table(), std::make_unique<FakeReader>(FakeReaderOptions{.seed = nth}, &faults),
        {.num_slots = 9});
    store->preload({{0, 1}, {0, 2}, {0, 3}});
    read_all(*store);
    EXPECT_EQ(store->preloaded().experts, 2u);
    EXPECT_EQ(store->preloaded().failed, 1u);
    EXPECT_NE(store->preloaded().failure.find("layer 0 expert"), std::string::npos);
    EXPECT_FALSE(run_layer(*store, 0, {1, 2, 3}).has_value());
    faults.heal();
    EXPECT_TRUE(run_layer(*store, 0, {1, 2, 3}).has_value());
  }
}

TEST_F(AtRest, a_preload_compares_checksums) {
  disk_.flip_stored_bit("/experts", (experts_.offset(3, 7) + 5) * 8);
  const auto store = make(9);
  store->preload({{3, 7}, {3, 8}});
  read_all(*store);
  EXPECT_EQ(store->preloaded().failed, 1u);
  EXPECT_NE(store->preloaded().failure.find("layer 3 expert 7 part 0"), std::string::npos);
}

// Stopped after any number of steps: the store works, its destructor finds no pin, and what was
// under way is there for who asks.
TEST_F(AtRest, a_preload_may_be_stopped_anywhere_and_go_on_later) {
  for (int steps = 0; steps < 12; ++steps) {
    const auto store = make(30, static_cast<uint64_t>(steps));
    std::vector<ExpertId> list;
    for (int i = 0; i < 25; ++i) list.push_back({i % 5, i / 5});
    store->preload(list);
    for (int step = 0; step < steps; ++step) store->preload_more(0ns);
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      ASSERT_TRUE(run_layer(*store, layer, {0, 4, 9}).has_value());
      store->preload_more(0ns);
    }
    read_all(*store);
    const uint64_t reads = store->stats().reads;
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      ASSERT_TRUE(run_layer(*store, layer, {0, 1, 2, 3}).has_value());
    }
    EXPECT_EQ(store->stats().reads, reads);
  }
}

TEST_F(AtRest, a_failed_read_of_a_preload_is_tried_again_by_the_stream_that_asks_meanwhile) {
  int healed = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    FakeFaults faults;
    // The first read and its repeat fail; a third one would work.
    faults.fail_read(0, EIO, Lasting::kForGood);
    const auto store = *ExpertStore::create(
        experts_.table(), std::make_unique<FakeReader>(FakeReaderOptions{.seed = seed}, &faults),
        {.num_slots = 9});
    store->preload({{0, 1}});
    store->preload_more(0ns);
    const std::vector<int32_t> wanted = {1, 2};
    ExpertStream stream = store->stream(0, wanted);
    auto arrived = stream.next({});
    while (arrived && !arrived->empty()) arrived = stream.next({});
    EXPECT_FALSE(arrived.has_value());  // its own attempt failed as well
    healed += store->stats().io_retries == 2;
  }
  EXPECT_GT(healed, 0);
}

TEST_F(AtRest, fewer_slots_keep_the_precious_experts_with_their_bytes) {
  const auto store = make(30);
  for (int i = 0; i < 6; ++i) {
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      ASSERT_TRUE(run_layer(*store, layer, {10, 11}).has_value());
    }
    if (i > 0) continue;
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      ASSERT_TRUE(run_layer(*store, layer, {0, 1, 2, 3}).has_value());
    }
  }
  EXPECT_EQ(store->resize(10), 10);
  EXPECT_EQ(store->num_slots(), 10);
  EXPECT_EQ(store->stats().shrinks, 1u);
  EXPECT_EQ(store->stats().slots_given_back, 20u);
  const uint64_t reads = store->stats().reads;
  for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
    ASSERT_TRUE(run_layer(*store, layer, {10, 11}).has_value());  // compares every byte
  }
  EXPECT_EQ(store->stats().reads, reads);
  EXPECT_EQ(store->resize(30), 30);
  for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
    ASSERT_TRUE(run_layer(*store, layer, {0, 1, 2, 3}).has_value());
  }
  const uint64_t again = store->stats().reads;
  for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
    ASSERT_TRUE(run_layer(*store, layer, {0, 1, 2, 3, 10, 11}).has_value());
  }
  EXPECT_EQ(store->stats().reads, again);
}

TEST_F(AtRest, a_resize_drops_wishes_and_waits_for_what_is_being_read) {
  const auto store = make(30);
  ASSERT_TRUE(run_layer(*store, 0, {1, 2, 3, 4}).has_value());
  store->prefetch(1, std::vector<int32_t>{5, 6, 7});
  store->preload({{2, 1}, {2, 2}, {2, 3}, {2, 4}});
  store->preload_more(0ns);
  EXPECT_EQ(store->resize(3), 3);
  for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
    ASSERT_TRUE(run_layer(*store, layer, all_experts()).has_value());  // in waves
  }
}

TEST_F(AtRest, a_read_that_does_not_end_keeps_its_slot_and_those_below_it) {
  const auto store = make(12);
  faults_.stall_read(6);
  store->preload({{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}});
  for (int i = 0; i < 20; ++i) store->preload_more(0ns);
  EXPECT_EQ(store->resize(2), 4);  // the fourth expert's slot is being read
  ASSERT_TRUE(run_layer(*store, 1, {1, 2}).has_value());
  faults_.release_stalled();
  ASSERT_TRUE(run_layer(*store, 0, {3}).has_value());
  EXPECT_EQ(store->resize(2), 2);
  ASSERT_TRUE(run_layer(*store, 0, all_experts()).has_value());
}

TEST_F(AtRest, slots_for_which_there_is_no_memory_do_not_come_back) {
  const auto store = make(20);
  EXPECT_EQ(store->resize(5), 5);
  fail_allocation_after(0);
  EXPECT_EQ(store->resize(20), 5);
  fail_allocation_after(-1);
  EXPECT_EQ(store->resize(20), 20);
  EXPECT_EQ(store->resize(1000), 20);
  EXPECT_EQ(store->resize(-3), 1);
  ASSERT_TRUE(run_layer(*store, 0, all_experts()).has_value());
}

// All fit, then not any more: wishes begin to make sense.
TEST_F(AtRest, wishes_are_wanted_when_not_all_experts_fit_any_more) {
  const auto store = make(TestExperts::kLayers * TestExperts::kExperts);
  for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
    ASSERT_TRUE(run_layer(*store, layer, all_experts()).has_value());
  }
  EXPECT_FALSE(store->wants_prefetch());
  store->resize(30);
  EXPECT_TRUE(store->wants_prefetch());
}

TEST_F(AtRest, any_sequence_of_sizes_streams_and_preloads_gives_right_bytes) {
  std::mt19937 random(29);
  for (uint64_t round = 0; round < 30; ++round) {
    const int most = 4 + static_cast<int>(random() % 40);
    const auto store = make(most, round);
    for (int i = 0; i < 60; ++i) {
      const int layer = static_cast<int>(random() % TestExperts::kLayers);
      const int first = static_cast<int>(random() % 8);
      switch (random() % 5) {
        case 0: store->resize(1 + static_cast<int>(random() % static_cast<uint32_t>(most))); break;
        case 1:
          store->preload({{layer, first}, {layer, first + 1}, {layer, first + 3}});
          store->preload_more(0ns);
          break;
        case 2:
          store->prefetch(layer, std::vector<int32_t>{first, first + 2, first + 4});
          store->keep_reading();
          break;
        default:
          ASSERT_TRUE(run_layer(*store, layer, {first, first + 1, first + 2, first + 3}));
          if (random() % 4 == 0) store->advance_token();
      }
    }
  }
}

}  // namespace
}  // namespace penstock
