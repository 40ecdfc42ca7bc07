// A source that is consumed on a disk that fails: whatever happens, and whenever, nothing is lost, and
// the same call made again ends with the model of a plain pack.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "pack/pack_input.h"
#include "pack/test_consumed.h"

namespace penstock {
namespace {

using test::expect_done;
using test::expected;
using test::Files;
using test::floats;
using test::in_place;
using test::options_of;
using test::pack;
using test::Source;
using test::split_gguf;
using test::without_weights;
using testing::HasSubstr;

// Where a piece lies in the new files, and what it is made from.
struct PlacedPiece {
  const char* file;
  uint64_t offset, bytes;
  std::set<std::string> sources = {};
};

std::vector<PlacedPiece> pieces_of(const Source& source) {
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  const auto input = *open_pack_input(disk, options_of(source), {});
  const std::vector<std::string> paths = input->source_paths();
  std::vector<PlacedPiece> pieces;
  const auto add = [&](PlacedPiece piece, const std::vector<uint32_t>& files) {
    for (const uint32_t file : files) {
      piece.sources.insert(paths[file].substr(paths[file].rfind('/') + 1));
    }
    pieces.push_back(std::move(piece));
  };
  for (size_t i = 0; i < input->resident().size(); ++i) {
    const ResidentTensor& tensor = input->resident()[i];
    add({"resident.bin", tensor.offset, align_file(tensor.bytes)}, input->files_of_resident(i));
  }
  const ExpertParts& experts = input->experts();
  for (uint64_t record = 0; record < experts.num_records(); ++record) {
    const int64_t layer = experts.layer_of(record);
    const int64_t expert = static_cast<int64_t>(record) % experts.num_experts;
    add({"experts.bin", experts.offset_of(record), experts.record_of(record).bytes},
        input->files_of_expert(layer, expert));
  }
  return pieces;
}

// The source's files are as they were or gone, and where one is gone, all that is made from it is on
// the disk as in a plain pack.
void expect_nothing_lost(SimStorage& disk, const Source& source) {
  static std::map<std::string, std::vector<PlacedPiece>> known;
  std::vector<PlacedPiece>& pieces = known[source.name];
  if (pieces.empty()) pieces = pieces_of(source);
  const Files left = test::load_all(disk, "/source");
  for (const auto& [name, bytes] : source.files) {
    if (left.contains(name)) {
      EXPECT_EQ(left.at(name), bytes) << name;
    } else {
      EXPECT_TRUE(source.weights.contains(name)) << name;
    }
  }
  if (left.size() == source.files.size()) return;
  const bool is_complete = disk.stat("/out/model").has_value();
  const Files made = test::load_all(disk, is_complete ? "/out/model" : "/out/model.partial");
  size_t num_compared = 0;
  for (const PlacedPiece& piece : pieces) {
    const bool is_alone = std::ranges::any_of(
        piece.sources, [&](const std::string& name) { return !left.contains(name); });
    if (!is_alone) continue;
    const std::string& file = made.at(piece.file);
    ASSERT_GE(file.size(), piece.offset + piece.bytes);
    EXPECT_EQ(file.compare(piece.offset, piece.bytes, expected(source).at(piece.file), piece.offset,
                           piece.bytes),
              0)
        << piece.file << " " << piece.offset;
    ++num_compared;
  }
  EXPECT_GT(num_compared, 0u);
}

uint64_t calls_of_a_run(const Source& source, SimCall call) {
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  const uint64_t before = disk.calls(call);
  pack(disk, in_place(source)).value();
  return disk.calls(call) - before;
}

TEST(InPlaceFaults, ended_at_every_call_and_begun_again) {
  for (const Source& source : {floats(), split_gguf()}) {
    const uint64_t calls = calls_of_a_run(source, SimCall::kAny);
    ASSERT_GT(calls, 200u);
    std::set<size_t> left;  // how many files of weights were left when it ended
    const uint64_t stride = source.path == "/source" ? 1 : 3;  // of a second kind not all
    for (uint64_t call = 0; call < calls; call += stride) {
      SimStorage disk(call);
      test::store_all(disk, "/source", source.files);
      disk.inject({.after = call, .times = kForEver, .error = EIO});
      const bool told_success = pack(disk, in_place(source)).has_value();
      disk.crash();
      expect_nothing_lost(disk, source);
      left.insert(disk.list("/source")->size() - without_weights(source).size());
      EXPECT_TRUE(!told_success || disk.stat("/out/model").has_value());
      // What is told complete may have left its record and its journal.
      if (!told_success || disk.stat("/out/model.in-place").has_value()) {
        const Result<PackReport> again = pack(disk, in_place(source));
        EXPECT_TRUE(again.has_value()) << again.error().message;
      }
      expect_done(disk, source);
      if (testing::Test::HasFailure()) FAIL() << source.name << " ended at call " << call;
    }
    EXPECT_EQ(left.size(), source.weights.size() + 1) << "it was ended between all of them";
  }
}

TEST(InPlaceFaults, ended_again_and_again) {
  const Source source = floats();
  const uint64_t calls = calls_of_a_run(source, SimCall::kAny);
  std::mt19937_64 random(11);
  for (uint64_t round = 0; round < 60; ++round) {
    SimStorage disk(500 + round);
    test::store_all(disk, "/source", source.files);
    bool is_done = false;
    for (int times = 0; times < 6 && !is_done; ++times) {
      disk.inject({.after = random() % calls, .times = kForEver, .error = EIO});
      is_done = pack(disk, in_place(source)).has_value();
      disk.crash();
      expect_nothing_lost(disk, source);
    }
    if (!disk.stat("/out/model").has_value() || disk.stat("/out/model.in-place").has_value()) {
      const Result<PackReport> again = pack(disk, in_place(source));
      ASSERT_TRUE(again.has_value()) << again.error().message;
    }
    expect_done(disk, source);
    if (testing::Test::HasFailure()) FAIL() << "round " << round;
  }
}

// The n-th call of a kind fails once; the program lives, and the same call made again ends well.
void fail_each_in_place(SimCall call, int error) {
  const Source source = floats();
  const uint64_t calls = calls_of_a_run(source, call);
  ASSERT_GT(calls, 0u);
  for (uint64_t n = 0; n < calls; ++n) {
    SimStorage disk(n);
    test::store_all(disk, "/source", source.files);
    disk.inject({.call = call, .after = n, .error = error});
    const Result<PackReport> packed = pack(disk, in_place(source));
    disk.clear_faults();
    expect_nothing_lost(disk, source);
    if (!packed) {
      EXPECT_EQ(packed.error().code, error == ENOSPC ? ErrorCode::kOutOfMemory : ErrorCode::kIo)
          << packed.error().message;
      const Result<PackReport> again = pack(disk, in_place(source));
      ASSERT_TRUE(again.has_value()) << again.error().message;
    }
    EXPECT_EQ(test::load_all(disk, "/out/model"), expected(source));
    EXPECT_EQ(test::load_all(disk, "/source"), without_weights(source));
    if (testing::Test::HasFailure()) FAIL() << "call " << n;
  }
}

TEST(InPlaceFaults, disk_full_at_every_write) {
  fail_each_in_place(SimCall::kWrite, ENOSPC);
}
TEST(InPlaceFaults, every_read_fails_once) {
  fail_each_in_place(SimCall::kRead, EIO);
}
TEST(InPlaceFaults, every_sync_fails_once) {
  fail_each_in_place(SimCall::kSync, EIO);
}
TEST(InPlaceFaults, every_removal_fails_once) {
  fail_each_in_place(SimCall::kRemove, EIO);
}
TEST(InPlaceFaults, every_open_fails_once) {
  fail_each_in_place(SimCall::kOpen, EMFILE);
}

TEST(InPlaceFaults, stopping_at_any_moment_can_be_continued) {
  const Source source = floats();
  size_t most_gone = 0;
  for (int moment = 0;; ++moment) {
    SimStorage disk;
    test::store_all(disk, "/source", source.files);
    std::stop_source stop;
    int seen = 0;
    const auto stop_then = [&](const PackProgress&) {
      if (seen++ == moment) stop.request_stop();
    };
    const Result<PackReport> packed =
        pack_model(disk, in_place(source), stop_then, stop.get_token());
    if (seen <= moment) break;
    if (!packed) {
      EXPECT_EQ(packed.error().code, ErrorCode::kCancelled);
      EXPECT_THAT(packed.error().message, HasSubstr("run the same command again to continue"));
      expect_nothing_lost(disk, source);
      most_gone = std::max(most_gone, source.files.size() - disk.list("/source")->size());
      pack(disk, in_place(source)).value();
    }
    expect_done(disk, source);
    if (testing::Test::HasFailure()) FAIL() << "moment " << moment;
  }
  EXPECT_GE(most_gone, source.weights.size() - 1);
}

// Bytes that the disk took and lost, while what they were made of is there.
TEST(InPlaceFaults, what_reads_back_wrong_is_made_again_before_its_source_goes) {
  const Source source = floats();
  int num_struck = 0;
  for (const char* file : {"model.partial/resident.bin", "model.partial/experts.bin"}) {
    for (uint64_t n = 0; n < 12; ++n) {
      SimStorage disk(n);
      test::store_all(disk, "/source", source.files);
      disk.inject(
          {.call = SimCall::kRead, .after = n, .effect = SimEffect::kFlipBit, .path_part = file});
      const Result<PackReport> packed = pack(disk, in_place(source));
      num_struck += static_cast<int>(disk.faults_struck());
      if (!packed) {  // the last reading of resident.bin
        EXPECT_EQ(packed.error().code, ErrorCode::kIo) << packed.error().message;
        pack(disk, in_place(source)).value();
      }
      expect_done(disk, source);
    }
  }
  EXPECT_GT(num_struck, 12);
}

TEST(InPlaceFaults, a_disk_that_loses_what_it_took_keeps_the_source) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  disk.inject({.call = SimCall::kRead,
               .times = kForEver,
               .effect = SimEffect::kFlipBit,
               .path_part = "experts.bin"});
  const Result<PackReport> packed = pack(disk, in_place(source));
  ASSERT_FALSE(packed.has_value());
  EXPECT_EQ(packed.error().code, ErrorCode::kIo);
  EXPECT_THAT(packed.error().message, HasSubstr("reads back differently"));
  disk.clear_faults();
  expect_nothing_lost(disk, source);
  pack(disk, in_place(source)).value();
  expect_done(disk, source);
}

}  // namespace
}  // namespace penstock
