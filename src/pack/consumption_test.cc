// In which order pieces are written so that files can go, and how much room that takes.

#include "pack/consumption.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace penstock {
namespace {

using testing::ElementsAre;

std::vector<ConsumedFile> files_of(size_t count, uint64_t bytes) {
  return std::vector<ConsumedFile>(count, ConsumedFile{.bytes = bytes});
}

TEST(Consumption, pieces_are_written_file_by_file) {
  // Residents in both files, experts one after the other.
  const std::vector<PieceSource> pieces = {{5, {0}}, {5, {1}}, {40, {0}}, {40, {0, 1}}, {40, {1}}};
  const Consumption plan = plan_consumption(pieces, files_of(2, 100));
  EXPECT_THAT(plan.order, ElementsAre(0, 2, 3, 1, 4));
  EXPECT_THAT(plan.place, ElementsAre(0, 3, 1, 2, 4));
  EXPECT_THAT(plan.spent_after, ElementsAre(3, kWhenComplete));
  // 85 until the first goes; then 45 of the 100 that it left.
  EXPECT_EQ(staging_bytes(plan, pieces, files_of(2, 100), 0, 0), 85u);
}

TEST(Consumption, the_file_that_misses_least_comes_first) {
  const std::vector<PieceSource> pieces = {{90, {0}}, {10, {1}}, {50, {2}}};
  EXPECT_THAT(plan_consumption(pieces, files_of(3, 100)).order, ElementsAre(1, 2, 0));
}

TEST(Consumption, what_no_piece_needs_or_the_end_reads_again_stays) {
  const std::vector<PieceSource> pieces = {{10, {0}}, {30, {2}}};
  std::vector<ConsumedFile> files = files_of(3, 100);
  files[0].is_kept = true;
  const Consumption plan = plan_consumption(pieces, files);
  EXPECT_THAT(plan.order, ElementsAre(1, 0)) << "those that stay come last";
  EXPECT_THAT(plan.spent_after, ElementsAre(kWhenComplete, kWhenComplete, 1));
}

TEST(Consumption, one_file_takes_the_room_of_both) {
  const std::vector<PieceSource> pieces = {{30, {0}}, {30, {0}}, {30, {0}}};
  const Consumption plan = plan_consumption(pieces, files_of(1, 100));
  EXPECT_EQ(staging_bytes(plan, pieces, files_of(1, 100), 0, 0), 90u);
}

TEST(Consumption, a_run_that_goes_on_needs_what_is_left) {
  const std::vector<PieceSource> pieces = {{60, {0}}, {60, {1}}, {90, {2}}};
  const std::vector<ConsumedFile> files = files_of(3, 50);
  const Consumption plan = plan_consumption(pieces, files);
  EXPECT_EQ(staging_bytes(plan, pieces, files, 0, 0), 110u);  // 60, 70, 110
  // The first is written and gone.
  std::vector<ConsumedFile> later = files;
  later[0].is_gone = true;
  EXPECT_EQ(staging_bytes(plan, pieces, later, 1, 0), 100u);
  // It is written and still there: it goes before anything else.
  EXPECT_EQ(staging_bytes(plan, pieces, files, 1, 0), 50u);
  for (ConsumedFile& file : later) file.is_gone = true;
  EXPECT_EQ(staging_bytes(plan, pieces, later, 3, 7), 7u) << "nothing but what comes at the end";
}

TEST(Consumption, files_that_arrive_are_finished_before_another_comes) {
  const std::vector<PieceSource> pieces = {{10, {0}}, {10, {0, 1}}, {90, {1}}, {80, {2}}};
  const std::vector<ConsumedFile> files = files_of(3, 100);
  const Consumption plan = plan_consumption(pieces, files, NextFile::kBegun);
  EXPECT_THAT(plan.order, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(plan_consumption(pieces, files).order, ElementsAre(0, 1, 3, 2));
  const ArrivalRoom room = arrival_room(plan, pieces, files, 0, 7);
  EXPECT_EQ(room.bytes, 297u);  // 110, 220, 210, and 190 + 7 with the last file
  EXPECT_EQ(room.num_files, 2u);
  EXPECT_EQ(arrival_room(plan, pieces, files, 3, 0).bytes, 180u);
}

TEST(Consumption, files_that_are_here_already_count_for_what_they_take) {
  const std::vector<PieceSource> pieces = {{10, {0}}, {10, {1}}, {30, {2}}};
  const std::vector<ConsumedFile> none = files_of(3, 100);
  const Consumption plan = plan_consumption(pieces, none, NextFile::kBegun);
  ASSERT_THAT(plan.order, ElementsAre(0, 1, 2));
  EXPECT_EQ(arrival_room(plan, pieces, none, 0, 0).bytes, 150u);  // 110, 120, 20 + 130
  // The first half here: that half is not needed again while it is, and all of it later.
  std::vector<ConsumedFile> files = none;
  files[0].here_bytes = 60;
  EXPECT_EQ(arrival_room(plan, pieces, files, 0, 0).bytes, 90u);
  // The last one lies there from the beginning, beside the first: no room for the first came of it.
  files = none;
  files[2].here_bytes = 100;
  EXPECT_EQ(arrival_room(plan, pieces, files, 0, 0).bytes, 120u);
  // A spent one goes before anything comes.
  files = none;
  files[0].here_bytes = 100;
  EXPECT_EQ(arrival_room(plan, pieces, files, 1, 0).bytes, 40u);
  EXPECT_EQ(arrival_room(plan, pieces, none, 1, 0).bytes, 140u);
}

TEST(Consumption, files_that_are_kept_are_here_at_the_end) {
  const std::vector<PieceSource> pieces = {{10, {0}}, {10, {1}}};
  std::vector<ConsumedFile> files = files_of(4, 100);
  for (const size_t file : {0, 2, 3}) files[file].is_kept = true;
  const Consumption plan = plan_consumption(pieces, files, NextFile::kBegun);
  const ArrivalRoom room = arrival_room(plan, pieces, files, 0, 0);
  EXPECT_EQ(room.num_files, 3u);
  EXPECT_EQ(room.bytes, 320u);
}

TEST(Consumption, nothing_goes_before_all_that_is_made_of_it_is_written) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    const size_t num_files = 1 + random() % 6;
    std::vector<PieceSource> pieces(random() % 40);
    for (PieceSource& piece : pieces) {
      piece.bytes = 1 + random() % 100;
      for (uint32_t file = 0; file < num_files; ++file) {
        if (random() % 3 == 0) piece.files.push_back(file);
      }
    }
    std::vector<ConsumedFile> files(num_files);
    for (ConsumedFile& file : files) file = {.bytes = random() % 500, .is_kept = random() % 4 == 0};
    const Consumption plan = plan_consumption(pieces, files);
    ASSERT_EQ(plan.order.size(), pieces.size());
    for (size_t piece = 0; piece < pieces.size(); ++piece) {
      ASSERT_EQ(plan.order[plan.place[piece]], piece);
      for (const uint32_t file : pieces[piece].files) {
        if (files[file].is_kept) {
          EXPECT_EQ(plan.spent_after[file], kWhenComplete);
        }
        EXPECT_GT(plan.spent_after[file], plan.place[piece]);
      }
    }
    EXPECT_EQ(plan_consumption(pieces, files).order, plan.order);
  }
}

}  // namespace
}  // namespace penstock
