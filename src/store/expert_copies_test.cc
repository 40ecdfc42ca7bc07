// The store over drives that hold the same experts: whichever is read, the bytes are the model's; one
// that fails, rots or was never a copy costs time and nothing else, as long as another has the bytes.

#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "store/expert_store.h"
#include "support/fake_reader.h"
#include "support/sim_storage.h"
#include "support/test_experts.h"

namespace penstock {
namespace {

class CopiesStore : public testing::Test {
 protected:
  ExpertTable table(bool learns = false) const {
    ExpertTable table = experts_.table();
    table.copies = {copy_.table().files, third_.table().files};
    if (!learns) return table;
    table.learns_checksums = true;
    for (LayerPlaces& layer : table.layers) {
      layer.checksums.assign(layer.checksums.size(), Hash128{});
    }
    return table;
  }

  std::unique_ptr<ExpertStore> make(ExpertTable table, StoreOptions options = {.num_slots = 7}) {
    options.team = &team_;
    return *ExpertStore::create(
        std::move(table),
        std::make_unique<FakeReader>(FakeReaderOptions{.seed = 5, .depth = 8}, &faults_), options);
  }

  Result<int> run_model(ExpertStore& store) {
    int received = 0;
    for (int step = 0; step < 3; ++step) {
      for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
        received += PENSTOCK_TRY(run_layer(store, layer, {1, 4, 9, 11}));
      }
      store.advance_token();
    }
    return received;
  }

  void break_drive(const std::string& path) {
    disk_.inject({.call = SimCall::kRead, .times = UINT64_MAX, .path_part = path});
  }

  SimStorage disk_{17};
  TestExperts experts_{disk_, "/own"};
  TestExperts copy_{disk_, "/copy"};
  TestExperts third_{disk_, "/third"};
  FakeFaults faults_;
  ThreadPool team_{3};
};

TEST_F(CopiesStore, every_drive_is_read_from) {
  const auto store = make(table());
  ASSERT_TRUE(run_model(*store).has_value());
  uint64_t reads = 0;
  ASSERT_EQ(store->drives().size(), 3u);
  for (const DriveReport& drive : store->drives()) {
    EXPECT_GT(drive.stats.reads, 0u) << drive.path;  // how many is a matter of time
    EXPECT_EQ(drive.stats.failures, 0u);
    reads += drive.stats.reads;
  }
  EXPECT_EQ(reads, store->stats().reads);
  EXPECT_EQ(store->drives()[1].path, "/copy");
}

TEST_F(CopiesStore, any_two_drives_may_be_dead) {
  for (const char* alive : {"/own", "/copy", "/third"}) {
    for (const char* path : {"/own", "/copy", "/third"}) {
      if (path != std::string(alive)) break_drive(path);
    }
    const auto store = make(table());
    ASSERT_TRUE(run_model(*store).has_value()) << alive;
    for (const DriveReport& drive : store->drives()) {
      EXPECT_EQ(drive.is_resting, drive.path != alive) << drive.path;
      // A few tries, and one more for what was asked before they were known.
      EXPECT_LT(drive.stats.failures, 16u) << drive.path;
    }
    disk_.clear_faults();
  }
}

TEST_F(CopiesStore, when_all_fail_the_error_says_so_and_the_store_works_when_one_comes_back) {
  for (const char* path : {"/own", "/copy", "/third"}) break_drive(path);
  const auto store = make(table());
  const auto failed = run_layer(*store, 2, {3, 5});
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code, ErrorCode::kIo);
  EXPECT_NE(failed.error().message.find("and of its other copies"), std::string::npos);
  disk_.clear_faults();
  break_drive("/own");
  break_drive("/third");
  EXPECT_TRUE(run_layer(*store, 2, {3, 5}).has_value());
}

// What is repeated where there is one drive is repeated where the others are dead.
TEST_F(CopiesStore, the_last_drive_alive_may_fail_for_a_moment) {
  for (const char* alive : {"/own", "/copy", "/third"}) {
    for (const char* path : {"/own", "/copy", "/third"}) {
      if (path != std::string(alive)) break_drive(path);
    }
    const auto store = make(table());
    for (int layer = 0; layer < TestExperts::kLayers; ++layer) {
      disk_.inject({.call = SimCall::kRead, .times = 1, .path_part = alive});
      EXPECT_TRUE(run_layer(*store, layer, {1, 4}).has_value()) << alive << " " << layer;
    }
    disk_.clear_faults();
  }
}

TEST_F(CopiesStore, rotten_and_wrong_copies_are_never_handed_out) {
  std::mt19937_64 random(3);
  for (const char* path : {"/copy", "/third"}) {
    const auto file = *disk_.open(path, OpenMode::kWrite);
    std::vector<std::byte> noise(file->stat()->bytes);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
    file->write(0, noise).value();
  }
  const auto store = make(table());
  ASSERT_TRUE(run_model(*store).has_value());
  EXPECT_GT(store->stats().checksum_failures, 0u);
}

// Of a file without checksums the first read makes one: a copy must not be what is believed.
TEST_F(CopiesStore, what_has_no_checksum_yet_is_read_from_the_models_own_file) {
  disk_.flip_stored_bit("/copy", experts_.offset(0, 1) * 8);
  disk_.flip_stored_bit("/third", experts_.offset(0, 1) * 8);
  const auto store = make(table(true), {.num_slots = 1});
  ASSERT_TRUE(run_layer(*store, 0, all_experts()).has_value());
  EXPECT_EQ(store->drives()[0].stats.reads, store->stats().reads);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(run_layer(*store, 0, all_experts()).has_value());
  EXPECT_GT(store->drives()[1].stats.reads, 0u);
  EXPECT_GT(store->drives()[2].stats.reads, 0u);
}

TEST_F(CopiesStore, without_verification_only_the_models_own_file_is_read) {
  const auto store = make(table(), {.num_slots = 7, .verify = false});
  ASSERT_TRUE(run_model(*store).has_value());
  EXPECT_EQ(store->drives()[0].stats.reads, store->stats().reads);
}

TEST_F(CopiesStore, a_file_of_another_length_is_no_copy) {
  const auto file = *disk_.open("/copy", OpenMode::kWrite);
  file->write(file->stat()->bytes, std::vector<std::byte>(4096)).value();
  const Result<void> checked = check_table(table());
  ASSERT_FALSE(checked.has_value());
  EXPECT_EQ(checked.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(checked.error().message.find("/copy"), std::string::npos);
}

}  // namespace
}  // namespace penstock
