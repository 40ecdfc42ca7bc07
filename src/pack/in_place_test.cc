// Packing that consumes its source: the model is that of a plain pack, what is begun is never started
// over, and what must not be done is refused before anything is.

#include "pack/in_place.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "format/container.h"
#include "pack/test_consumed.h"

namespace penstock {
namespace {

using test::begin_only;
using test::coded;
using test::end_after;
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
using testing::AllOf;
using testing::HasSubstr;

TEST(InPlace, the_model_is_that_of_a_plain_pack_and_the_weights_are_gone) {
  for (const Source& source :
       {floats(), split_gguf(), coded("mlx-4"), coded("mlx-mxfp4"), coded("fp8")}) {
    SimStorage disk;
    test::store_all(disk, "/source", source.files);
    const Result<PackReport> packed = pack(disk, in_place(source));
    ASSERT_TRUE(packed.has_value()) << packed.error().message;
    const PackReport& report = *packed;
    expect_done(disk, source);
    EXPECT_EQ(report.removed.size(), source.weights.size());
    uint64_t bytes = 0;
    for (const InPlaceFacts::File& file : report.removed) bytes += file.bytes;
    for (const std::string& name : source.weights) bytes -= source.files.at(name).size();
    EXPECT_EQ(bytes, 0u);
    EXPECT_TRUE(Container::open(disk, "/out/model").has_value());
  }
}

TEST(InPlace, of_every_coding_in_one_file_too) {
  for (const char* name : {"gguf-mixed", "gguf-mtp", "gguf-next", "mlx-4", "mlx-mxfp4", "fp8"}) {
    Source source{name,
                  test::load_all(posix_storage(), test::data_path(std::string("sources/") + name)),
                  "/source"};
    const bool is_gguf = source.files.contains("m.gguf");
    if (is_gguf) source.path += "/m.gguf";
    source.weights = {is_gguf ? "m.gguf" : "model.safetensors"};
    SimStorage plain, disk;
    for (SimStorage* each : {&plain, &disk}) test::store_all(*each, "/source", source.files);
    pack(plain, options_of(source)).value();
    pack(disk, in_place(source)).value();
    EXPECT_EQ(test::load_all(disk, "/out/model"), test::load_all(plain, "/out/model")) << name;
    EXPECT_EQ(test::load_all(disk, "/source"), without_weights(source)) << name;
  }
}

TEST(InPlace, what_is_begun_is_never_started_over) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  end_after(disk, source, 2);
  const Files before = test::load_all(disk, "/out/model.partial");

  PackOptions other = in_place(source);
  other.experts = DType::kQ2;
  SimStorage elsewhere;
  test::store_all(disk, "/other", test::tiny_checkpoint());
  PackOptions plain_of_other = options_of(source);
  plain_of_other.source = "/other";
  PackOptions in_place_of_other = in_place(source);
  in_place_of_other.source = "/other";
  for (const PackOptions& options :
       {other, options_of(source), plain_of_other, in_place_of_other}) {
    const Result<PackReport> packed = pack(disk, options);
    ASSERT_FALSE(packed.has_value());
    EXPECT_EQ(packed.error().code, ErrorCode::kInvalidArgument) << packed.error().message;
    EXPECT_THAT(packed.error().message, HasSubstr("--in-place"));
  }
  EXPECT_EQ(test::load_all(disk, "/out/model.partial"), before);
  pack(disk, in_place(source)).value();
  expect_done(disk, source);
}

TEST(InPlace, as_long_as_nothing_is_gone_it_may_be_started_over) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  begin_only(disk, source);
  ASSERT_TRUE(disk.stat("/out/model.in-place").has_value());
  pack(disk, options_of(source)).value();
  EXPECT_EQ(test::load_all(disk, "/out/model"), expected(source));
  EXPECT_EQ(test::load_all(disk, "/source"), source.files);
  // That one was never read back, and its source is not this pack's to remove.
  EXPECT_FALSE(disk.stat("/out/model.in-place").has_value());
  EXPECT_EQ(pack(disk, in_place(source)).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(test::load_all(disk, "/source"), source.files);
}

TEST(InPlace, a_folder_of_the_records_name_is_no_record) {
  Source source = floats();
  source.path = "/out/model.in-place";
  SimStorage disk;
  test::store_all(disk, source.path, source.files);
  EXPECT_EQ(pack(disk, in_place(source)).error().code, ErrorCode::kInvalidArgument);
  pack(disk, options_of(source)).value();
  EXPECT_EQ(test::load_all(disk, source.path), source.files);
}

// Each would remove what the other has not packed yet.
TEST(InPlace, one_source_is_consumed_by_one_pack_at_a_time) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  PackOptions other = in_place(source);
  other.target = "/out/other";
  bool was_tried = false;
  const auto begin_another = [&](const PackProgress&) {
    if (std::exchange(was_tried, true)) return;
    const Result<PackReport> second = pack(disk, other);
    ASSERT_FALSE(second.has_value());
    EXPECT_THAT(second.error().message, HasSubstr("another program"));
  };
  pack_model(disk, in_place(source), begin_another, {}).value();
  EXPECT_TRUE(was_tried);
  expect_done(disk, source);
}

// As a copy of the model's folder may bring it along.
TEST(InPlace, a_record_of_another_pack_removes_nothing) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  begin_only(disk, source);
  const std::string record = *read_text(disk, "/out/model.in-place", 1 << 30);
  pack(disk, options_of(source)).value();
  test::store(disk, "/out/model.in-place", record);
  const Result<PackReport> without_journal = pack(disk, in_place(source));
  ASSERT_FALSE(without_journal.has_value());
  EXPECT_THAT(without_journal.error().message, HasSubstr("did not make it"));
  test::store(disk, "/out/model.journal", "of whatever");
  PackOptions other = in_place(source);
  other.source = "/elsewhere/source";
  const Result<PackReport> of_another = pack(disk, other);
  ASSERT_FALSE(of_another.has_value());
  EXPECT_THAT(of_another.error().message, HasSubstr("another source"));
  EXPECT_EQ(test::load_all(disk, "/source"), source.files);
}

TEST(InPlace, a_file_that_somebody_else_took_or_changed_is_told) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  end_after(disk, source, 2);
  std::string taken;
  const std::vector<std::string> names = *disk.list("/source");
  for (const std::string& name : names) {
    if (source.weights.contains(name)) taken = name;
  }
  disk.rename("/source/" + taken, "/taken").value();
  const Result<PackReport> gone = pack(disk, in_place(source));
  ASSERT_FALSE(gone.has_value());
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound) << gone.error().message;
  EXPECT_THAT(gone.error().message, AllOf(HasSubstr(taken), HasSubstr("put it back")));
  test::store(disk, "/source/" + taken, source.files.at(taken));
  const Result<PackReport> changed = pack(disk, in_place(source));
  ASSERT_FALSE(changed.has_value());
  EXPECT_EQ(changed.error().code, ErrorCode::kCorrupt) << changed.error().message;
  EXPECT_THAT(changed.error().message, HasSubstr(taken));
  disk.rename("/taken", "/source/" + taken).value();
  pack(disk, in_place(source)).value();
  expect_done(disk, source);
}

TEST(InPlace, what_is_on_the_disk_of_a_file_that_is_gone_and_rots_is_told) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  end_after(disk, source, 3);
  const Files left = test::load_all(disk, "/source");
  // Also of an expert, whose bytes nobody looks at again before the model is run.
  disk.flip_stored_bit("/out/model.partial/experts.bin", 99);
  const Result<PackReport> of_expert = pack(disk, in_place(source));
  ASSERT_FALSE(of_expert.has_value());
  EXPECT_EQ(of_expert.error().code, ErrorCode::kCorrupt) << of_expert.error().message;
  EXPECT_EQ(test::load_all(disk, "/source"), left);
  disk.flip_stored_bit("/out/model.partial/experts.bin", 99);
  disk.flip_stored_bit("/out/model.partial/resident.bin", 99);
  const Result<PackReport> packed = pack(disk, in_place(source));
  ASSERT_FALSE(packed.has_value());
  EXPECT_EQ(packed.error().code, ErrorCode::kCorrupt) << packed.error().message;
  EXPECT_THAT(packed.error().message, HasSubstr("embed_tokens"));
  disk.flip_stored_bit("/out/model.partial/resident.bin", 99);
  pack(disk, in_place(source)).value();
  expect_done(disk, source);
}

TEST(InPlace, a_damaged_record_is_told_and_nothing_done) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  end_after(disk, source, 2);
  const uint64_t bits = disk.stat("/out/model.in-place")->bytes * 8;
  for (const uint64_t bit : {uint64_t{3}, uint64_t{64 + 5}, bits / 2, bits - 1}) {
    disk.flip_stored_bit("/out/model.in-place", bit);
    for (const PackOptions& options : {in_place(source), options_of(source)}) {
      const Result<PackReport> packed = pack(disk, options);
      ASSERT_FALSE(packed.has_value());
      EXPECT_EQ(packed.error().code, ErrorCode::kCorrupt);
      EXPECT_THAT(packed.error().message, HasSubstr("/out/model.in-place"));
    }
    disk.flip_stored_bit("/out/model.in-place", bit);
  }
  const uint64_t bytes = disk.stat("/out/model.in-place")->bytes;
  const std::string whole = *read_text(disk, "/out/model.in-place", bytes);
  for (const uint64_t length : {uint64_t{0}, uint64_t{12}, bytes / 2, bytes - 1}) {
    test::store(disk, "/out/model.in-place", std::string_view(whole).substr(0, length));
    EXPECT_EQ(pack(disk, in_place(source)).error().code, ErrorCode::kCorrupt);
  }
  test::store(disk, "/out/model.in-place", whole);
  pack(disk, in_place(source)).value();
  expect_done(disk, source);
}

// Nothing is made and nothing removed.
void expect_refused(SimStorage& disk, const Source& source, const PackOptions& options,
                    ErrorCode code, const std::string& text) {
  const Result<PackReport> packed = pack(disk, options);
  ASSERT_FALSE(packed.has_value()) << text;
  EXPECT_EQ(packed.error().code, code) << packed.error().message;
  EXPECT_THAT(packed.error().message, HasSubstr(text));
  EXPECT_EQ(test::load_all(disk, "/source"), source.files);
  EXPECT_FALSE(disk.stat("/out").has_value());
}

TEST(InPlace, who_does_not_agree_loses_nothing_and_is_told_what_would_be_lost) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  PackOptions options = in_place(source);
  options.resident = panel_form(DType::kQ8);
  InPlaceFacts facts;
  options.in_place = [&](const InPlaceFacts& told) -> Result<void> {
    facts = told;
    return Error{ErrorCode::kCancelled, "no"};
  };
  expect_refused(disk, source, options, ErrorCode::kCancelled, "no");
  EXPECT_EQ(facts.files.size(), source.weights.size());
  EXPECT_EQ(facts.num_gone, 0u);
  EXPECT_GT(facts.staging_bytes, 0u);
  EXPECT_THAT(facts.lost, testing::ElementsAre(HasSubstr("experts, which become q4"),
                                               HasSubstr("become q8"), HasSubstr("vision")));
}

TEST(InPlace, refusals_come_before_anything_is_made) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  PackOptions usual = in_place(source);
  usual.is_usual = true;
  expect_refused(disk, source, usual, ErrorCode::kInvalidArgument, "say --experts 4");
  PackOptions forced = in_place(source);
  forced.force = true;
  expect_refused(disk, source, forced, ErrorCode::kInvalidArgument, "--force");
  PackOptions mixed = in_place(source);
  mixed.target_bytes = 1 << 20;
  expect_refused(disk, source, mixed, ErrorCode::kInvalidArgument, "--target-bytes");
  PackOptions calibrated = in_place(source);
  calibrated.calibrate = []() -> Result<Calibration> { return Error{ErrorCode::kIo, "not asked"}; };
  expect_refused(disk, source, calibrated, ErrorCode::kInvalidArgument, "--calibrate");
  disk.set_capacity(2 << 20);
  expect_refused(disk, source, in_place(source), ErrorCode::kOutOfMemory, "are free");
}

// What is told before is what happens: written less removed, at every moment.
TEST(InPlace, the_disk_never_holds_more_than_was_told) {
  for (const Source& source : {floats(), split_gguf()}) {
    SimStorage disk;
    test::store_all(disk, "/source", source.files);
    PackOptions options = in_place(source);
    uint64_t told = 0, source_bytes = 0;
    options.in_place = [&](const InPlaceFacts& facts) -> Result<void> {
      told = facts.staging_bytes;
      source_bytes = facts.bytes;
      return {};
    };
    int64_t most = 0;
    const auto measure = [&](const PackProgress& now) {
      uint64_t left = 0;
      for (const std::string& name : source.weights) {
        const Result<FileStat> stat = disk.stat("/source/" + name);
        left += stat ? stat->bytes : 0;
      }
      most = std::max(
          most, static_cast<int64_t>(now.bytes_done + left) - static_cast<int64_t>(source_bytes));
    };
    pack_model(disk, options, measure, {}).value();
    EXPECT_GT(most, 0);
    EXPECT_LE(static_cast<uint64_t>(most), told);
    EXPECT_GE(static_cast<uint64_t>(most) + 60000, told) << "small files are told as well";
  }
}

// A pack that was killed at its n-th write: what it had written lies there, whether durable or not.
std::unique_ptr<SimStorage> killed_at_write(const Source& source, uint64_t n) {
  auto disk = std::make_unique<SimStorage>();
  test::store_all(*disk, "/source", source.files);
  disk->inject({.call = SimCall::kWrite, .after = n, .times = kForEver});
  static_cast<void>(pack(*disk, in_place(source)));
  disk->clear_faults();
  return disk;
}

// Whether it goes on where so many bytes are free; another end than for want of room is a failure.
bool goes_on_with(const Source& source, uint64_t n, uint64_t free) {
  const std::unique_ptr<SimStorage> disk = killed_at_write(source, n);
  disk->set_capacity(UINT64_MAX - *disk->free_bytes("/") + free);
  const Result<PackReport> packed = pack(*disk, in_place(source));
  if (packed) {
    expect_done(*disk, source);
    return true;
  }
  EXPECT_EQ(packed.error().code, ErrorCode::kOutOfMemory) << packed.error().message;
  EXPECT_THAT(packed.error().message, HasSubstr("too small: packing in place needs"));
  return false;
}

uint64_t least_free(const Source& source, uint64_t n) {
  uint64_t low = 0, high = uint64_t{1} << 26;
  while (high - low > 1) {
    const uint64_t free = (low + high) / 2;
    (goes_on_with(source, n, free) ? high : low) = free;
  }
  return high;
}

// Of moments with the same journal and the same files left, the later ones hold more that is written
// again over itself, up to what is written between two syncs.
TEST(InPlace, room_that_a_killed_pack_holds_is_not_asked_for_again) {
  const Source source = floats();
  const uint64_t most = in_place(source).sync_bytes;
  std::pair<uint64_t, size_t> moment;
  uint64_t least = 0, held_first = 0, num_moments = 0, num_holding = 0, num_holding_most = 0;
  for (uint64_t n = 0;; ++n) {
    const std::unique_ptr<SimStorage> killed = killed_at_write(source, n);
    if (killed->stat("/out/model").has_value()) break;
    const Result<uint64_t> resident = killed->held_bytes("/out/model.partial/resident.bin");
    if (!resident) continue;
    const uint64_t held = *resident + *killed->held_bytes("/out/model.partial/experts.bin");
    const std::pair<uint64_t, size_t> now = {killed->stat("/out/model.journal")->bytes,
                                             killed->list("/source")->size()};
    if (std::exchange(moment, now) != now) {
      ++num_moments;
      held_first = held;
      least = least_free(source, n);
      continue;
    }
    ASSERT_GE(held, held_first);
    const uint64_t again = std::min(held - held_first, most);
    num_holding += again > 0;
    num_holding_most += again == most;
    EXPECT_TRUE(goes_on_with(source, n, least - again)) << n;
    EXPECT_FALSE(goes_on_with(source, n, least - again - 1)) << n;
    if (testing::Test::HasFailure()) FAIL() << "killed at write " << n;
  }
  EXPECT_GT(num_moments, 3u);
  EXPECT_GT(num_holding, 20u);
  EXPECT_GT(num_holding_most, 0u);
}

TEST(InPlace, a_model_that_is_there_is_not_replaced) {
  const Source source = floats();
  SimStorage disk;
  test::store_all(disk, "/source", source.files);
  pack(disk, options_of(source)).value();
  const Result<PackReport> packed = pack(disk, in_place(source));
  ASSERT_FALSE(packed.has_value());
  EXPECT_EQ(packed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(test::load_all(disk, "/source"), source.files);
}

}  // namespace
}  // namespace penstock
