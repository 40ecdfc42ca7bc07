// The store on a disk that fails: rows D1 to D7 of the fault table. Bytes that are not right are
// never handed out, what can be healed is healed without a trace but a number, and after any error
// the same store works again.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <thread>

#include "io/readers.h"
#include "store/expert_store.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"

namespace penstock {
namespace {

using namespace std::chrono_literals;

class FaultyStore : public testing::Test {
 protected:
  std::unique_ptr<ExpertStore> make(StoreOptions options = {.num_slots = 7}) {
    options.team = &team_;
    return *ExpertStore::create(
        experts_.table(),
        std::make_unique<FakeReader>(FakeReaderOptions{.seed = 3, .depth = 8}, &faults_), options);
  }

  // A short run of a model: every layer twice, more experts than slots.
  Result<int> run_model(ExpertStore& store) {
    int received = 0;
    for (int step = 0; step < 2; ++step) {
      for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
        received += PENSTOCK_TRY(run_layer(store, layer, {1, 4, 9, 11}));
      }
      store.advance_token();
    }
    return received;
  }

  uint64_t reads_of_a_run() {
    const auto store = make();
    run_model(*store).value();
    return store->stats().reads;
  }

  SimStorage disk_{13};
  TestExperts experts_{disk_, "/experts"};
  FakeFaults faults_;
  ThreadPool team_{3};
};

// D1
TEST_F(FaultyStore, any_read_may_fail_once) {
  const uint64_t reads = reads_of_a_run();
  ASSERT_GT(reads, 40u);
  for (uint64_t nth = 0; nth < reads; ++nth) {
    const auto store = make();
    faults_.fail_read(faults_.reads_submitted() + nth, EIO, Lasting::kOnce);
    ASSERT_TRUE(run_model(*store).has_value());
    EXPECT_EQ(store->stats().io_retries, 1u);
    EXPECT_EQ(store->stats().reads, reads + 1);
  }
}

// D2
TEST_F(FaultyStore, a_read_that_fails_for_good_is_an_error_with_its_place_until_it_heals) {
  const uint64_t reads = reads_of_a_run();
  for (uint64_t nth = 0; nth < reads; ++nth) {
    const auto store = make();
    faults_.fail_read(faults_.reads_submitted() + nth, EIO, Lasting::kForGood);
    const auto failed = run_model(*store);
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().code, ErrorCode::kIo);
    for (const char* part :
         {"layer ", " expert ", " part ", "/experts", " at 0x", "Input/output"}) {
      EXPECT_NE(failed.error().message.find(part), std::string::npos) << failed.error().message;
    }
    EXPECT_FALSE(run_model(*store).has_value());
    faults_.heal();
    EXPECT_TRUE(run_model(*store).has_value());
  }
}

TEST_F(FaultyStore, one_bad_place_does_not_stop_other_experts) {
  const auto store = make();
  faults_.fail_read(0, EIO, Lasting::kForGood);
  EXPECT_FALSE(run_layer(*store, 0, {2, 3}).has_value());
  EXPECT_TRUE(run_layer(*store, 0, {3}).has_value());
  EXPECT_TRUE(run_layer(*store, 1, {2, 3}).has_value());
  EXPECT_FALSE(run_layer(*store, 0, {2}).has_value());
}

// D3
TEST_F(FaultyStore, short_and_interrupted_reads_are_completed_at_every_call) {
  disk_.inject({.call = SimCall::kRead, .times = kForEver, .effect = SimEffect::kShort});
  const auto store = make();
  ASSERT_TRUE(run_model(*store).has_value());
  EXPECT_GT(disk_.faults_struck(), store->stats().reads);
  disk_.clear_faults();
  for (const int error : {EINTR, EAGAIN}) {
    for (uint64_t nth = 0; nth < 80; ++nth) {
      disk_.inject({.call = SimCall::kRead, .after = nth, .error = error});
      const auto interrupted = make();
      ASSERT_TRUE(run_model(*interrupted).has_value());
      EXPECT_EQ(interrupted->stats().io_retries, 0u);
      disk_.clear_faults();
    }
  }
}

// D4: a bit that rotted on the disk. Only padding is not covered, and is not used either.
TEST_F(FaultyStore, every_flipped_bit_of_a_record_is_detected) {
  const auto store = make({.num_slots = 1});
  std::mt19937_64 random(7);
  for (int i = 0; i < 10000; ++i) {
    const int layer = static_cast<int>(random() % TestExperts::kLayers);
    const int expert = static_cast<int>(random() % TestExperts::kExperts);
    const int part = static_cast<int>(random() % 2);
    const uint64_t bit = experts_.offset(layer, expert, part) * 8 +
                         random() % (experts_.table().part(layer, part).bytes * 8);
    disk_.flip_stored_bit("/experts", bit);
    const std::vector<int32_t> wanted = {expert};
    {
      ExpertStream stream = store->stream(layer, wanted);
      Result<std::span<const ExpertArrival>> arrived = stream.next({});
      // The sound part may come first.
      while (arrived && !arrived->empty()) arrived = stream.next({});
      ASSERT_FALSE(arrived.has_value());
      ASSERT_EQ(arrived.error().code, ErrorCode::kCorrupt);
    }
    disk_.flip_stored_bit("/experts", bit);
  }
  EXPECT_EQ(store->stats().checksum_failures, 20000u);  // read twice each
  EXPECT_TRUE(run_layer(*store, 0, all_experts()).has_value());
}

TEST_F(FaultyStore, a_bit_flipped_on_the_way_is_healed_by_a_second_read) {
  for (uint64_t nth = 0; nth < 40; ++nth) {
    const auto store = make();
    disk_.inject({.call = SimCall::kRead, .after = nth, .effect = SimEffect::kFlipBit});
    ASSERT_TRUE(run_model(*store).has_value());
    disk_.clear_faults();
    EXPECT_LE(store->stats().checksum_failures, 1u);  // 0 when the bit was in padding
  }
}

TEST_F(FaultyStore, a_corrupt_expert_is_named) {
  disk_.flip_stored_bit("/experts", (experts_.offset(3, 7) + 5) * 8);
  const auto store = make();
  const auto failed = run_layer(*store, 3, {6, 7, 8});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(failed.error().message.find("layer 3 expert 7 part 0"), std::string::npos);
  EXPECT_NE(failed.error().message.find("/experts"), std::string::npos);
  EXPECT_TRUE(run_layer(*store, 3, {6, 8}).has_value());
}

TEST_F(FaultyStore, verification_can_be_switched_off) {
  disk_.flip_stored_bit("/experts", experts_.offset(0, 0) * 8);
  const auto store = make({.num_slots = 4, .verify = false});
  const std::vector<int32_t> wanted = {0};
  ExpertStream stream = store->stream(0, wanted);
  EXPECT_TRUE(stream.next({}).has_value());
  EXPECT_EQ(store->stats().bytes_verified, 0u);
}

// D5: right length, right bytes of somewhere else, whole records and shifted ones.
TEST_F(FaultyStore, bytes_of_the_wrong_place_are_detected) {
  const auto record = static_cast<int64_t>(TestExperts::kRecord);
  for (const int64_t by : {record, -record, 12 * record, int64_t{4096}}) {
    const auto store = make();
    disk_.inject(
        {.call = SimCall::kRead, .times = kForEver, .effect = SimEffect::kMisdirect, .by = by});
    const auto failed = run_layer(*store, 2, {5});
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().code, ErrorCode::kCorrupt);
    disk_.clear_faults();
    disk_.inject({.call = SimCall::kRead, .effect = SimEffect::kMisdirect, .by = by});
    EXPECT_TRUE(run_layer(*store, 2, {5}).has_value());
    disk_.clear_faults();
  }
}

// D6
TEST_F(FaultyStore, a_stall_is_an_error_after_its_limit_and_the_slot_comes_back) {
  const auto store = make({.num_slots = 7, .stall_limit = 60ms});
  faults_.stall_read(1);
  const auto failed = run_layer(*store, 0, {1, 2, 3});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  EXPECT_NE(failed.error().message.find("no answer from the disk"), std::string::npos);
  EXPECT_TRUE(run_layer(*store, 1, {1, 2, 3, 4, 5, 6}).has_value());  // around the open slot
  EXPECT_FALSE(run_layer(*store, 0, {2}).has_value());                // still open
  faults_.release_stalled();
  EXPECT_TRUE(run_layer(*store, 0, {1, 2, 3}).has_value());
  EXPECT_GE(store->stats().wait_ns, 120'000'000);
}

TEST_F(FaultyStore, a_wait_ends_when_it_is_cancelled) {
  const auto store = make();
  faults_.stall_read(0);
  std::stop_source stop;
  std::jthread canceller([&] {
    std::this_thread::sleep_for(20ms);
    stop.request_stop();
  });
  const auto cancelled = run_layer(*store, 0, {1, 2, 3}, stop.get_token());
  ASSERT_FALSE(cancelled.has_value());
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  faults_.release_stalled();
  EXPECT_TRUE(run_model(*store).has_value());
}

TEST_F(FaultyStore, every_slot_stalled_is_an_error_and_no_slot_is_reused) {
  const auto store = make({.num_slots = 2, .stall_limit = 60ms});
  for (uint64_t nth = 0; nth < 4; ++nth) faults_.stall_read(nth);
  EXPECT_EQ(run_layer(*store, 0, {1, 2}).error().code, ErrorCode::kIo);
  EXPECT_EQ(run_layer(*store, 1, {3, 4}).error().code, ErrorCode::kIo);
  faults_.release_stalled();
  EXPECT_TRUE(run_layer(*store, 1, {3, 4}).has_value());
  EXPECT_TRUE(run_layer(*store, 0, {1, 2}).has_value());
}

// D7
TEST_F(FaultyStore, a_file_that_shrinks_while_open_is_an_error_that_says_so) {
  const auto store = make({.num_slots = 20});
  ASSERT_TRUE(run_layer(*store, 4, {1}).has_value());
  disk_.truncate("/experts", experts_.offset(2, 0));
  EXPECT_TRUE(run_layer(*store, 1, all_experts()).has_value());
  EXPECT_TRUE(run_layer(*store, 4, {1}).has_value());  // in memory
  const auto failed = run_layer(*store, 2, {0});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  EXPECT_NE(failed.error().message.find("truncated"), std::string::npos);
}

TEST(StoreOnRealFiles, goes_on_with_a_deleted_file_and_reports_a_truncated_one) {
  for (const ReaderKind kind : {ReaderKind::kThreads, ReaderKind::kAuto}) {
    const std::string path = testing::TempDir() + "penstock_store_" + std::to_string(getpid());
    const TestExperts experts(posix_storage(), path);
    const auto store = *ExpertStore::create(
        experts.table(), *make_reader({.kind = kind, .depth = 8}, nullptr), {.num_slots = 6});
    const auto second_name = path + ".link";
    ASSERT_EQ(::link(path.c_str(), second_name.c_str()), 0);
    ASSERT_EQ(::unlink(path.c_str()), 0);
    EXPECT_TRUE(run_layer(*store, 0, all_experts()).has_value());
    ASSERT_EQ(::truncate(second_name.c_str(), 0), 0);
    const auto failed = run_layer(*store, 1, {0, 1, 2});
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().code, ErrorCode::kIo);
    ASSERT_EQ(::unlink(second_name.c_str()), 0);
  }
}

// Random faults of every kind at once: each run ends, in right bytes or in an error.
TEST_F(FaultyStore, random_faults_never_bring_wrong_bytes) {
  std::mt19937_64 random(17);
  int failed = 0;
  int healed = 0;
  for (int round = 0; round < 80; ++round) {
    const auto store = make({.num_slots = 1 + static_cast<int>(random() % 8)});
    for (int i = 0; i < 6; ++i) {
      const SimEffect effect = std::array{SimEffect::kError, SimEffect::kShort, SimEffect::kFlipBit,
                                          SimEffect::kMisdirect}[random() % 4];
      disk_.inject({.call = SimCall::kRead,
                    .after = random() % 60,
                    .times = 1 + random() % 3,
                    .effect = effect,
                    .error = random() % 2 == 0 ? EIO : EINTR,
                    .by = 4096 * static_cast<int64_t>(random() % 9)});
    }
    for (int i = 0; i < 12; ++i) {
      const auto result = run_model(*store);
      failed += !result.has_value();
      healed += result.has_value() && store->stats().io_retries > 0;
    }
    disk_.clear_faults();
    ASSERT_TRUE(run_model(*store).has_value());
  }
  EXPECT_GT(failed, 0);
  EXPECT_GT(healed, 0);
}

}  // namespace
}  // namespace penstock
