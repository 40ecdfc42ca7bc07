#include "store/expert_store.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "base/memory.h"
#include "io/readers.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"

namespace penstock {
namespace {

class Store : public testing::Test {
 protected:
  std::unique_ptr<ExpertStore> make(int num_slots, FakeReaderOptions reader = {},
                                    EvictionPolicy policy = EvictionPolicy::kFrequencyRecency) {
    return *ExpertStore::create(experts_.table(), std::make_unique<FakeReader>(reader, &faults_),
                                {.num_slots = num_slots, .policy = policy});
  }

  SimStorage disk_{11};
  TestExperts experts_{disk_, "/experts"};
  FakeFaults faults_;
};

TEST_F(Store, hands_out_every_part_once_with_its_own_bytes) {
  const auto store = make(TestExperts::kLayers * TestExperts::kExperts);
  for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
    ASSERT_TRUE(run_layer(*store, layer, all_experts()).has_value());
  }
  EXPECT_EQ(store->stats().misses, 60u);
  EXPECT_EQ(store->stats().reads, 120u);
  EXPECT_EQ(store->stats().evictions, 0u);
  EXPECT_GT(store->stats().bytes_verified, 0u);
  for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
    ASSERT_TRUE(run_layer(*store, layer, all_experts()).has_value());
  }
  EXPECT_EQ(store->stats().hits, 60u);
  EXPECT_EQ(store->stats().reads, 120u);
}

TEST_F(Store, any_number_of_slots_gives_the_same_bytes) {
  for (int num_slots = 1; num_slots <= 14; ++num_slots) {
    for (const EvictionPolicy policy : kEvictionPolicies) {
      const auto store = make(num_slots, {.seed = 5, .depth = 8}, policy);
      for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
        ASSERT_TRUE(run_layer(*store, layer, all_experts()).has_value());
      }
      EXPECT_GE(store->stats().evictions, 60u - static_cast<uint64_t>(num_slots));
      EXPECT_EQ(store->stats().waves > 0, num_slots < TestExperts::kExperts);
    }
  }
}

// Row D9.
TEST_F(Store, any_order_and_depth_gives_the_same_bytes) {
  for (const int depth : {1, 2, 3, 16, 256}) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      const auto store = make(10, {.seed = seed, .depth = depth, .delay_reaps_max = 6});
      std::mt19937 random(static_cast<uint32_t>(seed));
      for (int i = 0; i < 15; ++i) {
        std::vector<int32_t> wanted = all_experts();
        std::shuffle(wanted.begin(), wanted.end(), random);
        wanted.resize(1 + random() % wanted.size());
        ASSERT_TRUE(run_layer(*store, i % TestExperts::kLayers, wanted).has_value());
      }
      EXPECT_LE(faults_.most_in_flight(), 256u);
    }
  }
}

TEST_F(Store, hands_out_hits_before_it_waits_for_misses) {
  const auto store = make(12);
  ASSERT_TRUE(run_layer(*store, 0, {3, 4}).has_value());
  faults_.stall_read(faults_.reads_submitted());
  ExpertStream stream = store->stream(0, std::vector<int32_t>{9, 3, 4});
  const auto arrived = *stream.next({});
  ASSERT_EQ(arrived.size(), 4u);
  EXPECT_EQ(arrived[0].index, 1);
  EXPECT_EQ(arrived[1].part, 1);
  EXPECT_EQ(arrived[2].index, 2);
  faults_.release_stalled();
}

TEST_F(Store, asks_for_all_first_parts_before_the_second_ones) {
  // One read at a time shows the order.
  const auto store = make(12, {.seed = 1, .depth = 1, .delay_reaps_max = 0});
  ExpertStream stream = store->stream(2, std::vector<int32_t>{7, 1, 5});
  std::vector<std::pair<int, int>> order;
  for (;;) {
    const auto arrived = *stream.next({});
    if (arrived.empty()) break;
    for (const ExpertArrival& arrival : arrived) order.emplace_back(arrival.index, arrival.part);
  }
  EXPECT_EQ(order,
            (std::vector<std::pair<int, int>>{{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}, {2, 1}}));
}

TEST_F(Store, in_waves_an_expert_is_completed_before_the_next) {
  const auto store = make(2, {.seed = 1, .depth = 1, .delay_reaps_max = 0});
  ExpertStream stream = store->stream(2, std::vector<int32_t>{7, 1, 5});
  std::vector<std::pair<int, int>> order;
  for (;;) {
    const auto arrived = *stream.next({});
    if (arrived.empty()) break;
    for (const ExpertArrival& arrival : arrived) {
      order.emplace_back(arrival.index, arrival.part);
      if (arrival.part == 1) stream.release(arrival.index);
    }
  }
  EXPECT_EQ(order,
            (std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {1, 0}, {1, 1}, {2, 0}, {2, 1}}));
  EXPECT_GT(store->stats().waves, 0u);
}

TEST_F(Store, what_was_handed_out_stays_until_it_is_released) {
  const auto store = make(3);
  ExpertStream stream = store->stream(1, std::vector<int32_t>{0, 1, 2, 3, 4});
  std::vector<ExpertArrival> held;
  while (held.size() < 6) {
    const auto arrived = *stream.next({});
    held.insert(held.end(), arrived.begin(), arrived.end());
  }
  for (const ExpertArrival& arrival : held) {
    EXPECT_TRUE(is_right(*store, arrival, 1, arrival.index));
  }
}

TEST_F(Store, an_abandoned_stream_leaves_reads_that_end_in_their_slots) {
  const auto store = make(12, {.seed = 1, .depth = 64, .delay_reaps_max = 5});
  { const ExpertStream stream = store->stream(0, std::vector<int32_t>{1, 2, 3}); }
  ASSERT_TRUE(run_layer(*store, 1, {1, 2, 3, 4, 5, 6}).has_value());
  const uint64_t reads = store->stats().reads;
  ASSERT_TRUE(run_layer(*store, 0, {1, 2, 3}).has_value());
  EXPECT_EQ(store->stats().reads, reads);  // nothing was read twice
}

TEST_F(Store, an_abandoned_stream_with_reads_still_queued_gives_its_slots_back) {
  const auto store = make(4, {.seed = 1, .depth = 1, .delay_reaps_max = 2});
  for (int i = 0; i < 20; ++i) {
    const ExpertStream stream = store->stream(i % 5, std::vector<int32_t>{1, 2, 3, 4, 5, 6});
  }
  for (int layer = 0; layer < 5; ++layer) {
    ASSERT_TRUE(run_layer(*store, layer, all_experts()).has_value());
  }
}

TEST_F(Store, an_empty_request_is_done_at_once) {
  const auto store = make(1);
  EXPECT_EQ(*run_layer(*store, 0, {}), 0);
}

TEST_F(Store, a_moved_stream_ends_once) {
  const auto store = make(4);
  ExpertStream first = store->stream(0, std::vector<int32_t>{1});
  ExpertStream second = std::move(first);
  EXPECT_EQ((*second.next({})).size(), 1u);
}

TEST_F(Store, what_a_nearer_tier_has_is_counted_and_not_read) {
  const auto store = make(12);
  RoutingTrace trace(TestExperts::kLayers, TestExperts::kExperts);
  store->set_trace(&trace);
  {
    ExpertStream stream = store->stream(1, std::vector<int32_t>{5}, std::vector<int32_t>{7, 9});
    while (!(*stream.next({})).empty()) continue;
  }
  store->set_trace(nullptr);
  EXPECT_EQ(store->stats().requests, 1u);
  EXPECT_EQ(store->stats().nearer, 2u);
  EXPECT_EQ(store->stats().reads, 2u);
  const ExpertUsage usage = store->usage();
  for (const int expert : {5, 7, 9}) {
    EXPECT_EQ(usage.counts[static_cast<size_t>(TestExperts::kExperts + expert)], 1.0f);
  }
  ASSERT_EQ(trace.events().size(), 1u);
  EXPECT_EQ(trace.events()[0].experts.size(), 3u);
  // The tier is lost: they are read, and not counted twice.
  ExpertStream stream = store->stream_lost(std::vector<int32_t>{7, 9});
  size_t arrived = 0;
  for (;;) {
    const auto arrivals = *stream.next({});
    if (arrivals.empty()) break;
    arrived += arrivals.size();
  }
  EXPECT_EQ(arrived, 4u);
  EXPECT_EQ(store->usage().counts[TestExperts::kExperts + 7], 1.0f);
  EXPECT_EQ(store->stats().reads, 6u);
}

TEST_F(Store, a_spare_expert_makes_room_first) {
  const auto store = make(4);
  ASSERT_TRUE(run_layer(*store, 0, {1, 2, 3, 4}).has_value());
  store->set_spare({0, 4}, true);
  store->set_spare({0, 11}, true);  // in no slot: nothing to say
  for (int layer = 1; layer < 3; ++layer) {
    const ExpertStream nothing = store->stream(layer, {});
  }
  ASSERT_TRUE(run_layer(*store, 3, {7}).has_value());
  const uint64_t reads = store->stats().reads;
  ASSERT_TRUE(run_layer(*store, 0, {1, 2, 3}).has_value());
  EXPECT_EQ(store->stats().reads, reads);
  ASSERT_TRUE(run_layer(*store, 0, {4}).has_value());
  EXPECT_GT(store->stats().reads, reads);
}

TEST_F(Store, records_what_was_asked_for) {
  const auto store = make(4);
  RoutingTrace trace(TestExperts::kLayers, TestExperts::kExperts);
  store->set_trace(&trace);
  ASSERT_TRUE(run_layer(*store, 0, {5, 3}).has_value());
  ASSERT_TRUE(run_layer(*store, 1, {2}).has_value());
  store->advance_token();
  ASSERT_TRUE(run_layer(*store, 0, {3}).has_value());
  store->set_trace(nullptr);
  ASSERT_TRUE(run_layer(*store, 0, {9}).has_value());
  const auto events = trace.events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].experts[1], 3);
  EXPECT_EQ(events[1].layer, 1);
  EXPECT_EQ(events[1].step, 0);
  EXPECT_EQ(events[2].step, 1);
  EXPECT_EQ(store->stats().steps, 1u);
}

TEST_F(Store, statistics_add_up_and_can_start_again) {
  const auto store = make(6);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(run_layer(*store, i, {1, 2, 3}).has_value());
  const StoreStats stats = store->stats();
  EXPECT_EQ(stats.requests, 12u);
  EXPECT_EQ(stats.hits + stats.misses, stats.requests);
  EXPECT_EQ(stats.evictions, 6u);
  EXPECT_EQ(stats.bytes_read, 12 * 4 * kReadAlignment);
  uint64_t timed = 0;
  for (size_t i = 0; i <= Histogram::kBounds.size(); ++i) timed += store->read_times().count(i);
  EXPECT_EQ(timed, stats.reads);
  EXPECT_GT(store->read_times().sum(), 0);
  store->reset_stats();
  EXPECT_EQ(store->stats().requests + store->stats().evictions + store->stats().reads, 0u);
}

// Row R2: the store allocates once; that allocation may fail.
TEST_F(Store, creation_without_memory_is_an_error) {
  fail_allocation_after(0);
  const auto store = ExpertStore::create(experts_.table(),
                                         std::make_unique<FakeReader>(FakeReaderOptions{}, nullptr),
                                         {.num_slots = 4});
  fail_allocation_after(-1);
  ASSERT_FALSE(store.has_value());
  EXPECT_EQ(store.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(store.error().message.find("expert slots"), std::string::npos);
  EXPECT_GE(ExpertStore::bytes_needed(experts_.table(), {.num_slots = 4}),
            4 * TestExperts::kRecord);
}

TEST_F(Store, a_store_without_slots_is_refused) {
  const auto store = ExpertStore::create(
      experts_.table(), std::make_unique<FakeReader>(FakeReaderOptions{}, nullptr), {});
  EXPECT_EQ(store.error().code, ErrorCode::kInvalidArgument);
}

// For ThreadSanitizer: real threads write slots while this one evicts, abandons and starts again.
TEST_F(Store, survives_hurry_with_real_threads) {
  auto store = *ExpertStore::create(experts_.table(), make_thread_reader(4, 16), {.num_slots = 9});
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    std::vector<int32_t> wanted = all_experts();
    std::shuffle(wanted.begin(), wanted.end(), random);
    wanted.resize(1 + random() % wanted.size());
    const int layer = static_cast<int>(random() % TestExperts::kLayers);
    if (random() % 4 == 0) {
      ExpertStream stream = store->stream(layer, wanted);
      ASSERT_TRUE(stream.next({}).has_value());
    } else {
      ASSERT_TRUE(run_layer(*store, layer, wanted).has_value());
    }
  }
  EXPECT_GT(store->stats().evictions, 100u);
}

}  // namespace
}  // namespace penstock
