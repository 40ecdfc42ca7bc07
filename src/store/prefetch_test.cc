// Wishes: what is read ahead, when, at whose cost, and what becomes of it.

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "io/readers.h"
#include "store/expert_store.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"

namespace penstock {
namespace {

class Prefetch : public testing::Test {
 protected:
  // Answers come in the first reap() after a read was submitted.
  static constexpr FakeReaderOptions kPrompt = {.seed = 4, .depth = 64, .delay_reaps_max = 0};

  std::unique_ptr<ExpertStore> make(int num_slots, FakeReaderOptions reader = kPrompt,
                                    bool prefetch = true) {
    return *ExpertStore::create(experts_.table(), std::make_unique<FakeReader>(reader, &faults_),
                                {.num_slots = num_slots, .prefetch = prefetch});
  }

  using Ids = std::vector<int32_t>;

  // Runs layer 0 with a wish list for layer 1 made in its middle.
  void run_with_wishes(ExpertStore& store, const Ids& wanted, const Ids& wishes) {
    ExpertStream stream = store.stream(0, wanted);
    store.prefetch(1, wishes);
    for (;;) {
      const auto arrived = stream.next({}).value();
      if (arrived.empty()) return;
      for (const ExpertArrival& arrival : arrived) {
        if (arrival.part == 1) stream.release(arrival.index);
      }
    }
  }

  // What a caller does between its ops.
  static void read_on(ExpertStore& store) {
    for (int op = 0; op < 20; ++op) store.keep_reading();
  }

  SimStorage disk_{19};
  TestExperts experts_{disk_, "/experts"};
  FakeFaults faults_;
};

TEST_F(Prefetch, a_wish_is_read_once_and_used_without_another_read) {
  const auto store = make(20);
  run_with_wishes(*store, {1, 2}, {5, 6, 7});
  EXPECT_EQ(store->stats().prefetches, 3u);
  EXPECT_EQ(store->stats().reads, 2u * (2 + 3));
  ASSERT_TRUE(run_layer(*store, 1, {5, 7, 9}).has_value());
  const StoreStats stats = store->stats();
  EXPECT_EQ(stats.reads, 2u * (2 + 3 + 1));
  EXPECT_EQ(stats.prefetches_used, 2u);
  EXPECT_EQ(stats.prefetch_bytes, 3 * TestExperts::kRecord);
}

// The cost model's limit is computed from the hit rate: it must not look better than it is.
TEST_F(Prefetch, an_expert_that_was_read_ahead_is_a_miss_the_first_time_and_then_a_hit) {
  const auto store = make(20);
  run_with_wishes(*store, {1}, {5});
  ASSERT_TRUE(run_layer(*store, 1, {5}).has_value());
  EXPECT_EQ(store->stats().hits, 0u);
  EXPECT_EQ(store->stats().misses, 2u);
  ASSERT_TRUE(run_layer(*store, 1, {5}).has_value());
  EXPECT_EQ(store->stats().hits, 1u);
}

TEST_F(Prefetch, an_expert_read_ahead_in_vain_and_asked_for_later_is_no_hit_either) {
  const auto store = make(20);
  run_with_wishes(*store, {1}, {5});
  ASSERT_TRUE(run_layer(*store, 1, {6}).has_value());
  const uint64_t reads = store->stats().reads;
  ASSERT_TRUE(run_layer(*store, 1, {5}).has_value());
  EXPECT_EQ(store->stats().reads, reads);
  EXPECT_EQ(store->stats().hits, 0u);
  EXPECT_EQ(store->stats().prefetches_used, 0u);
}

TEST_F(Prefetch, a_slot_that_changed_hands_counts_as_its_new_expert_deserves) {
  const auto store = make(4);
  run_with_wishes(*store, {1, 2}, {5});                         // read ahead, not used
  ASSERT_TRUE(run_layer(*store, 2, {1, 2, 3, 4}).has_value());  // takes every slot
  ASSERT_TRUE(run_layer(*store, 2, {1, 2, 3, 4}).has_value());
  EXPECT_EQ(store->stats().hits, 4u);
}

TEST_F(Prefetch, wishes_wait_until_all_but_a_few_demanded_reads_have_ended) {
  const auto store = make(30, {.seed = 1, .depth = 16, .delay_reaps_max = 0});
  for (uint64_t nth = 0; nth < 3; ++nth) faults_.stall_read(nth);
  ExpertStream stream = store->stream(0, Ids{1, 2, 3, 4, 5});
  store->prefetch(1, Ids{8});
  EXPECT_EQ(store->stats().prefetches, 0u);
  ASSERT_FALSE(stream.next({}).value().empty());  // seven arrive, three hang
  EXPECT_EQ(store->stats().prefetches, 0u);
  faults_.release_stalled();
  ASSERT_FALSE(stream.next({}).value().empty());
  EXPECT_EQ(store->stats().prefetches, 1u);
}

TEST_F(Prefetch, wishes_wait_while_demanded_reads_are_queued) {
  const auto store = make(30, {.seed = 1, .depth = 8, .delay_reaps_max = 0});
  {
    ExpertStream stream = store->stream(0, Ids{0, 1, 2, 3, 4, 5});  // 12 reads, 8 at a time
    store->prefetch(1, Ids{8});
    EXPECT_EQ(faults_.reads_submitted(), 8u);
    ASSERT_FALSE(stream.next({}).value().empty());
    EXPECT_EQ(faults_.reads_submitted(), 12u);
    EXPECT_EQ(store->stats().prefetches, 0u);
    while (!stream.next({}).value().empty()) {
    }
  }
  EXPECT_EQ(store->stats().prefetches, 1u);
}

TEST_F(Prefetch, wishes_start_at_once_when_nothing_is_missing) {
  const auto store = make(30);
  ASSERT_TRUE(run_layer(*store, 0, {1, 2}).has_value());
  ExpertStream stream = store->stream(0, Ids{1, 2});
  store->prefetch(1, Ids{8, 9});
  EXPECT_EQ(store->stats().prefetches, 2u);
}

TEST_F(Prefetch, wishes_that_were_not_started_are_dropped_when_the_next_stream_begins) {
  const auto store = make(30, {.seed = 1, .depth = 8, .delay_reaps_max = 0});
  store->prefetch(1, Ids{4, 5, 6, 7});  // half of the depth: room for two
  EXPECT_EQ(store->stats().prefetches, 2u);
  ASSERT_TRUE(run_layer(*store, 1, {9}).has_value());
  ASSERT_TRUE(run_layer(*store, 2, {9}).has_value());
  EXPECT_EQ(store->stats().prefetches, 2u);
  EXPECT_EQ(store->stats().reads, 2u * (2 + 2));
}

TEST_F(Prefetch, the_first_of_the_list_come_first) {
  const auto store = make(30, {.seed = 1, .depth = 8, .delay_reaps_max = 0});
  { const ExpertStream stream = store->stream(0, Ids{}); }
  store->prefetch(1, Ids{7, 2, 9, 4});  // room for two
  EXPECT_EQ(store->stats().prefetches, 2u);
  ASSERT_TRUE(run_layer(*store, 1, {7, 2}).has_value());
  EXPECT_EQ(store->stats().prefetches_used, 2u);
}

TEST_F(Prefetch, a_new_list_takes_the_place_of_the_old_one) {
  const auto store = make(30);
  ExpertStream stream = store->stream(0, Ids{1, 2, 3});
  store->prefetch(1, Ids{4, 5});
  store->prefetch(2, Ids{6});
  while (!stream.next({}).value().empty()) {
  }
  { const ExpertStream ended = std::move(stream); }
  EXPECT_EQ(store->stats().prefetches, 1u);
  ASSERT_TRUE(run_layer(*store, 2, {6}).has_value());
  EXPECT_EQ(store->stats().prefetches_used, 1u);
}

TEST_F(Prefetch, names_given_twice_are_read_once) {
  const auto store = make(30);
  store->prefetch(1, Ids{4, 4, 4});
  EXPECT_EQ(store->stats().prefetches, 1u);
  ASSERT_TRUE(run_layer(*store, 1, {4}).has_value());
}

// What the idle time does not suffice for is not read in vain.
TEST_F(Prefetch, a_few_experts_are_read_at_a_time_and_the_rest_while_the_caller_computes) {
  const auto store = make(32);
  run_with_wishes(*store, {1, 2}, {4, 5, 6, 7, 8, 9, 10, 11});
  const uint64_t at_once = store->stats().prefetches;
  EXPECT_GT(at_once, 0u);
  EXPECT_LT(at_once, 8u);
  store->keep_reading();
  EXPECT_GT(store->stats().prefetches, at_once);
  read_on(*store);
  EXPECT_EQ(store->stats().prefetches, 8u);
}

TEST_F(Prefetch, no_more_than_half_of_what_a_layer_leaves_over_is_read_ahead) {
  for (int num_slots = 1; num_slots <= 20; ++num_slots) {
    const auto store = make(num_slots);
    run_with_wishes(*store, {1, 2, 3}, {4, 5, 6, 7, 8, 9, 10, 11});
    read_on(*store);
    const int left = std::max(0, num_slots - 3);
    EXPECT_EQ(store->stats().prefetches, static_cast<uint64_t>(std::min(8, left / 2))) << num_slots;
    // What was read ahead does not stand in the way of a layer that wants everything.
    ASSERT_TRUE(run_layer(*store, 2, all_experts()).has_value());
  }
}

TEST_F(Prefetch, is_not_wanted_where_all_experts_are_or_slots_are_few_or_it_is_switched_off) {
  constexpr int kAll = TestExperts::kLayers * TestExperts::kExperts;
  const auto all = make(kAll);
  for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
    EXPECT_TRUE(all->wants_prefetch());
    ASSERT_TRUE(run_layer(*all, layer, all_experts()).has_value());
  }
  EXPECT_FALSE(all->wants_prefetch());
  EXPECT_TRUE(make(kAll - 1)->wants_prefetch());
  EXPECT_FALSE(make(kAll - 1, kPrompt, false)->wants_prefetch());
  EXPECT_FALSE(make(1)->wants_prefetch());
  const auto few = make(5);
  const ExpertStream stream = few->stream(0, Ids{1, 2, 3, 4});
  EXPECT_FALSE(few->wants_prefetch());
  const uint64_t reads = all->stats().reads;
  all->prefetch(1, Ids{3});
  EXPECT_EQ(all->stats().reads, reads);
  const auto off = make(kAll - 1, kPrompt, false);
  off->prefetch(1, Ids{3});
  EXPECT_EQ(off->stats().reads, 0u);
}

TEST_F(Prefetch, wished_experts_stay_until_their_layer_ran_and_go_first_when_it_did_not_want_them) {
  const auto store = make(10);
  ASSERT_TRUE(run_layer(*store, 1, {1, 2}).has_value());
  ExpertStream stream = store->stream(0, Ids{0, 1, 2, 3});
  store->prefetch(1, Ids{1, 8, 9});  // one cached, two not
  while (!stream.next({}).value().empty()) {
  }
  EXPECT_EQ(store->stats().prefetches, 2u);
  for (int32_t index = 0; index < 4; ++index) stream.release(index);
  { const ExpertStream ended = std::move(stream); }
  uint64_t reads = store->stats().reads;
  ASSERT_TRUE(run_layer(*store, 1, {1, 8}).has_value());
  EXPECT_EQ(store->stats().reads, reads);
  // Ten slots hold 4 + 2 + 2; these take the two free ones and that of the wish that nobody used.
  ASSERT_TRUE(run_layer(*store, 2, {0, 1, 2}).has_value());
  reads = store->stats().reads;
  ASSERT_TRUE(run_layer(*store, 1, {1, 2, 8}).has_value());
  ASSERT_TRUE(run_layer(*store, 0, {0, 1, 2, 3}).has_value());
  EXPECT_EQ(store->stats().reads, reads);
  ASSERT_TRUE(run_layer(*store, 1, {9}).has_value());
  EXPECT_EQ(store->stats().reads, reads + 2);
}

TEST_F(Prefetch, the_end_of_a_token_lets_wishes_go) {
  const auto store = make(9);
  store->prefetch(1, Ids{1, 2, 3, 4});
  read_on(*store);
  store->advance_token();
  EXPECT_EQ(store->stats().prefetches, 4u);
  ASSERT_TRUE(run_layer(*store, 0, {1, 2, 3, 4, 5, 6, 7, 8, 9}).has_value());
  EXPECT_EQ(store->stats().waves, 0u);  // all nine slots could be had
}

TEST_F(Prefetch, a_read_for_a_wish_that_fails_is_no_error_and_the_demand_tries_again) {
  for (uint64_t part = 0; part < 2; ++part) {
    const auto store = make(20);
    faults_.fail_read(faults_.reads_submitted() + part, EIO, Lasting::kForGood);
    store->prefetch(1, Ids{5});
    ASSERT_TRUE(run_layer(*store, 0, {1}).has_value());  // drops the wish, collects its failure
    faults_.heal();
    ASSERT_TRUE(run_layer(*store, 1, {5}).has_value());
  }
}

TEST_F(Prefetch, a_read_for_a_wish_that_fails_under_a_demand_is_tried_again_by_the_demand) {
  // One part may have failed while the other is still open.
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const auto store = make(20, {.seed = seed, .depth = 64, .delay_reaps_max = 5});
    const uint64_t first = faults_.reads_submitted();
    // Both parts, and the repeats that come at once; the demand's own reads are sound.
    for (uint64_t nth = first; nth < first + 4; ++nth) faults_.fail_read(nth, EIO, Lasting::kOnce);
    store->prefetch(1, Ids{5});
    ASSERT_TRUE(run_layer(*store, 1, {5}).has_value()) << "seed " << seed;
    EXPECT_EQ(store->stats().reads, 6u);
    EXPECT_EQ(store->stats().io_retries, 2u);
    EXPECT_EQ(store->stats().prefetches_used, 1u);
  }
}

TEST_F(Prefetch, a_place_that_fails_for_good_is_an_error_only_for_who_asks) {
  const auto store = make(20);
  faults_.fail_read(faults_.reads_submitted(), EIO, Lasting::kForGood);
  store->prefetch(1, Ids{5});
  const auto failed = run_layer(*store, 1, {4, 5});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  store->prefetch(1, Ids{5});
  EXPECT_TRUE(run_layer(*store, 1, {4}).has_value());
  faults_.heal();
  EXPECT_TRUE(run_layer(*store, 1, {5}).has_value());
}

TEST_F(Prefetch, wrong_bytes_read_ahead_are_never_handed_out) {
  disk_.flip_stored_bit("/experts", (experts_.offset(1, 5) + 100) * 8);
  const auto store = make(20);
  store->prefetch(1, Ids{5});
  const auto failed = run_layer(*store, 1, {5});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kCorrupt);
}

TEST_F(Prefetch, a_store_with_wishes_in_flight_can_be_destroyed) {
  const auto store = make(20, {.seed = 1, .depth = 64, .delay_reaps_max = 5});
  store->prefetch(1, Ids{5, 6, 7});
  EXPECT_EQ(store->stats().prefetches, 3u);
}

TEST_F(Prefetch, counts_by_layer_what_was_foreseen) {
  const auto store = make(30);
  ASSERT_TRUE(run_layer(*store, 1, {3}).has_value());
  run_with_wishes(*store, {1}, {3, 5, 6});
  ASSERT_TRUE(run_layer(*store, 1, {3, 5, 8, 9}).has_value());
  const LayerRecall recall = store->recall()[1];
  EXPECT_EQ(recall.chosen, 4u);
  EXPECT_EQ(recall.foreseen, 2u);
  EXPECT_EQ(recall.missed, 3u);
  EXPECT_EQ(recall.missed_foreseen, 1u);
  EXPECT_EQ(store->recall()[0].chosen, 0u);  // had no list
  store->reset_stats();
  EXPECT_EQ(store->recall()[1].chosen, 0u);
  EXPECT_EQ(store->stats().prefetches, 0u);
}

TEST_F(Prefetch, stops_when_guesses_are_wrong_and_tries_again_later) {
  const auto store = make(20);
  std::mt19937 random(3);
  const auto run_token = [&](bool is_right) {
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      const auto expert = static_cast<int32_t>(random() % TestExperts::kExperts);
      const int32_t other = (expert + 6) % TestExperts::kExperts;
      if (store->wants_prefetch()) store->prefetch(layer, Ids{is_right ? expert : other});
      run_layer(*store, layer, {expert}).value();
    }
    store->advance_token();
  };
  for (int token = 0; token < 100; ++token) run_token(true);
  EXPECT_TRUE(store->wants_prefetch());
  int tokens = 0;
  for (; store->wants_prefetch() && tokens < 100; ++tokens) run_token(false);
  EXPECT_LT(tokens, 100);
  const uint64_t prefetches = store->stats().prefetches;
  run_token(false);
  EXPECT_EQ(store->stats().prefetches, prefetches);
  for (tokens = 0; !store->wants_prefetch() && tokens < 100; ++tokens) run_token(true);
  EXPECT_LT(tokens, 64);
  for (tokens = 0; tokens < 20; ++tokens) run_token(true);
  EXPECT_TRUE(store->wants_prefetch());
}

// Any wishes, right or wrong, whatever the slots, the reader and its faults: the bytes are right.
TEST_F(Prefetch, random_wishes_never_change_bytes) {
  std::mt19937_64 random(23);
  uint64_t prefetches = 0, used = 0;
  int failed = 0;
  for (int round = 0; round < 120; ++round) {
    const auto store = make(1 + static_cast<int>(random() % 40),
                            {.seed = random(), .depth = 1 + static_cast<int>(random() % 40)});
    const auto some = [&] {
      Ids ids = all_experts();
      std::shuffle(ids.begin(), ids.end(), random);
      ids.resize(random() % 6);
      return ids;
    };
    for (int run = 0; run < 40; ++run) {
      const int layer = run % TestExperts::kLayers;
      const Ids wanted = some();
      if (random() % 8 == 0)
        faults_.fail_read(faults_.reads_submitted() + random() % 9, EIO,
                          random() % 2 ? Lasting::kOnce : Lasting::kForGood);
      if (random() % 2) store->prefetch(layer, random() % 2 ? wanted : some());
      if (random() % 6 == 0) {
        ExpertStream stream = store->stream(layer, wanted);
        store->prefetch((layer + 1) % TestExperts::kLayers, some());
        failed += !stream.next({}).has_value();
      } else {
        failed += !run_layer(*store, layer, wanted).has_value();
      }
      if (random() % 5 == 0) store->advance_token();
      if (random() % 6 == 0) faults_.heal();
    }
    faults_.heal();
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      ASSERT_TRUE(run_layer(*store, layer, all_experts()).has_value()) << round;
    }
    prefetches += store->stats().prefetches;
    used += store->stats().prefetches_used;
  }
  EXPECT_GT(failed, 20);
  EXPECT_GT(prefetches, 1000u);
  EXPECT_GT(used, 500u);
}

// For ThreadSanitizer.
TEST_F(Prefetch, survives_hurry_with_real_threads) {
  auto store = *ExpertStore::create(experts_.table(), make_thread_reader(4, 32), {.num_slots = 19});
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const int layer = i % TestExperts::kLayers;
    Ids wanted = all_experts();
    std::shuffle(wanted.begin(), wanted.end(), random);
    wanted.resize(4);
    store->prefetch(layer, Ids{wanted[0], wanted[1], (wanted[2] + 1) % TestExperts::kExperts});
    ASSERT_TRUE(run_layer(*store, layer, wanted).has_value());
  }
  EXPECT_GT(store->stats().prefetches_used, 50u);
}

}  // namespace
}  // namespace penstock
