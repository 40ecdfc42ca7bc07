// Packing on a disk that fails: whatever happens, and whenever, the same call made again ends with
// the bytes of an undisturbed run, nothing half is ever a model, and the source is not touched.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "base/memory.h"
#include "format/container.h"
#include "pack/pack.h"
#include "pack/test_checkpoint.h"

namespace penstock {
namespace {

using test::Files;
using test::pack;
using testing::HasSubstr;

PackOptions small_steps() {
  PackOptions options;
  options.source = "/source";
  options.target = "/out/model";
  options.experts = DType::kQ4;
  options.sync_bytes = 40000;  // the journal is written every few pieces
  return options;
}

const Files& undisturbed() {
  static const Files files = [] {
    SimStorage disk;
    test::store_all(disk, "/source", test::tiny_checkpoint());
    pack(disk, small_steps()).value();
    return test::load_all(disk, "/out/model");
  }();
  return files;
}

uint64_t calls_of_a_run(SimCall call) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  const uint64_t before = disk.calls(call);
  pack(disk, small_steps()).value();
  return disk.calls(call) - before;
}

// What must hold after any trouble.
void expect_nothing_half(SimStorage& disk) {
  if (disk.stat("/out/model").has_value()) {
    EXPECT_EQ(test::load_all(disk, "/out/model"), undisturbed());
  }
  EXPECT_EQ(test::load_all(disk, "/source"), test::tiny_checkpoint());
}

// The next run finds either a finished model or something to continue or nothing.
void expect_healed(SimStorage& disk) {
  if (!disk.stat("/out/model").has_value()) {
    const Result<PackReport> again = pack(disk, small_steps());
    ASSERT_TRUE(again.has_value()) << again.error().message;
  }
  EXPECT_EQ(test::load_all(disk, "/out/model"), undisturbed());
}

TEST(PackFaults, power_lost_at_every_call) {
  const uint64_t calls = calls_of_a_run(SimCall::kAny);
  ASSERT_GT(calls, 150u);
  for (uint64_t call = 0; call < calls; ++call) {
    SimStorage disk(call);
    test::store_all(disk, "/source", test::tiny_checkpoint());
    disk.inject({.after = call, .times = kForEver, .error = EIO});
    const bool told_success = pack(disk, small_steps()).has_value();
    EXPECT_TRUE(!told_success || call > calls - 20) << call;
    disk.crash();
    EXPECT_TRUE(!told_success || disk.stat("/out/model").has_value()) << "what is told is durable";
    expect_nothing_half(disk);
    expect_healed(disk);
    if (testing::Test::HasFailure()) FAIL() << "power lost at call " << call;
  }
}

TEST(PackFaults, power_lost_again_and_again_at_random) {
  const uint64_t calls = calls_of_a_run(SimCall::kAny);
  std::mt19937_64 random(7);
  for (uint64_t round = 0; round < 100; ++round) {
    SimStorage disk(1000 + round);
    test::store_all(disk, "/source", test::tiny_checkpoint());
    for (int losses = 0; losses < 3 && !disk.stat("/out/model").has_value(); ++losses) {
      disk.inject({.after = random() % calls, .times = kForEver, .error = EIO});
      const Result<PackReport> packed = pack(disk, small_steps());
      static_cast<void>(packed);  // a resumed run may be shorter than the fault is late
      disk.crash();
      expect_nothing_half(disk);
    }
    expect_healed(disk);
    if (testing::Test::HasFailure()) FAIL() << "round " << round;
  }
}

TEST(PackFaults, work_done_before_a_power_loss_is_not_done_again) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  disk.inject({.after = calls_of_a_run(SimCall::kAny) * 3 / 4, .times = kForEver, .error = EIO});
  EXPECT_FALSE(pack(disk, small_steps()).has_value());
  disk.crash();
  const PackReport report = *pack(disk, small_steps());
  EXPECT_GT(report.resumed_bytes, 0u);
  EXPECT_LT(report.resumed_bytes, report.resident_bytes + report.experts_bytes);
}

// The n-th call of a kind fails once; the run stops with an error or gets by.
void fail_each(SimCall call, int error) {
  const uint64_t calls = calls_of_a_run(call);
  ASSERT_GT(calls, 0u);
  for (uint64_t n = 0; n < calls; ++n) {
    SimStorage disk(n);
    test::store_all(disk, "/source", test::tiny_checkpoint());
    disk.inject({.call = call, .after = n, .error = error});
    const Result<PackReport> packed = pack(disk, small_steps());
    EXPECT_EQ(disk.faults_struck(), 1u);
    if (!packed) {
      EXPECT_EQ(packed.error().code, error == ENOSPC ? ErrorCode::kOutOfMemory : ErrorCode::kIo)
          << packed.error().message;
      EXPECT_THAT(packed.error().message, HasSubstr("/"));
    }
    disk.clear_faults();
    expect_nothing_half(disk);
    expect_healed(disk);
    if (testing::Test::HasFailure()) FAIL() << "call " << n;
  }
}

TEST(PackFaults, disk_full_at_every_write) {
  fail_each(SimCall::kWrite, ENOSPC);
}
TEST(PackFaults, disk_full_at_every_reservation) {
  fail_each(SimCall::kReserve, ENOSPC);
}
TEST(PackFaults, every_read_fails_once) {
  fail_each(SimCall::kRead, EIO);
}
TEST(PackFaults, every_sync_fails_once) {
  fail_each(SimCall::kSync, EIO);
}
TEST(PackFaults, every_open_fails_once) {
  fail_each(SimCall::kOpen, EMFILE);
}
TEST(PackFaults, every_rename_fails_once) {
  fail_each(SimCall::kRename, EIO);
}
TEST(PackFaults, every_removal_fails_once) {
  fail_each(SimCall::kRemove, EIO);
}

TEST(PackFaults, a_source_that_cannot_be_read_is_named_by_tensor) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  bool broken = false;
  const auto break_disk = [&](const PackProgress&) {
    if (std::exchange(broken, true)) return;
    disk.inject({.call = SimCall::kRead, .times = kForEver, .path_part = "model.safetensors"});
  };
  const Result<PackReport> packed = pack_model(disk, small_steps(), break_disk, {});
  ASSERT_FALSE(packed.has_value());
  EXPECT_EQ(packed.error().code, ErrorCode::kIo);
  EXPECT_THAT(packed.error().message, HasSubstr("tensor \"model.layers.0."));
  EXPECT_THAT(packed.error().message, HasSubstr("run the same command again"));
}

TEST(PackFaults, a_disk_too_small_is_refused_before_any_work_with_numbers) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  disk.set_capacity(2 << 20);
  const Result<PackReport> packed = pack(disk, small_steps());
  ASSERT_FALSE(packed.has_value());
  EXPECT_EQ(packed.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(packed.error().message, HasSubstr("MiB are free"));
  EXPECT_THAT(packed.error().message, HasSubstr("needs"));
  EXPECT_FALSE(disk.stat("/out/model.partial").has_value());
  disk.set_capacity(UINT64_MAX);
  expect_healed(disk);
}

TEST(PackFaults, stopping_at_any_moment_can_be_continued) {
  for (int moment = 0;; ++moment) {
    SimStorage disk;
    test::store_all(disk, "/source", test::tiny_checkpoint());
    std::stop_source stop;
    int seen = 0;
    const auto stop_then = [&](const PackProgress&) {
      if (seen++ == moment) stop.request_stop();
    };
    const Result<PackReport> packed = pack_model(disk, small_steps(), stop_then, stop.get_token());
    if (seen <= moment) {
      EXPECT_GT(moment, 40);
      EXPECT_TRUE(packed.has_value());
      break;
    }
    if (!packed) {
      EXPECT_EQ(packed.error().code, ErrorCode::kCancelled);
      EXPECT_THAT(packed.error().message, HasSubstr("run the same command again to continue"));
      EXPECT_FALSE(disk.stat("/out/model").has_value());
      const PackReport report = *pack(disk, small_steps());
      EXPECT_GT(report.resumed_bytes, 0u) << moment;
    }
    EXPECT_EQ(test::load_all(disk, "/out/model"), undisturbed()) << moment;
  }
}

// Stops after `moments` progress calls and leaves the unfinished pack on `disk`.
void interrupt(SimStorage& disk, int moments) {
  std::stop_source stop;
  const auto stop_then = [&](const PackProgress&) {
    if (moments-- == 0) stop.request_stop();
  };
  EXPECT_EQ(pack_model(disk, small_steps(), stop_then, stop.get_token()).error().code,
            ErrorCode::kCancelled);
}

struct Notes {
  std::string text;
  PackCallback callback() {
    return [this](const PackProgress& progress) { text += progress.note; };
  }
};

TEST(PackFaults, damage_to_what_was_written_last_is_noticed_and_mended) {
  for (const char* file : {"resident.bin", "experts.bin"}) {
    SimStorage disk;
    test::store_all(disk, "/source", test::tiny_checkpoint());
    interrupt(disk, std::string_view(file) == "experts.bin" ? 70 : 20);
    const std::string path = std::string("/out/model.partial/") + file;
    const uint64_t bytes = disk.stat(path)->bytes;
    ASSERT_GT(bytes, 0u) << file;
    disk.flip_stored_bit(path, bytes * 8 - 4096 * 8 + 3);
    expect_healed(disk);
  }
}

TEST(PackFaults, damage_to_resident_weights_before_the_last_step_is_found_at_the_end) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  interrupt(disk, 70);  // among the experts
  disk.flip_stored_bit("/out/model.partial/resident.bin", 99);
  const Result<PackReport> packed = pack(disk, small_steps());
  ASSERT_FALSE(packed.has_value());
  EXPECT_THAT(packed.error().message, HasSubstr("embed_tokens"));
  expect_healed(disk);
}

TEST(PackFaults, other_options_start_over_and_say_so) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  interrupt(disk, 70);
  PackOptions other = small_steps();
  other.experts = DType::kQ2;
  Notes notes;
  const PackReport report = *pack_model(disk, other, notes.callback(), {});
  EXPECT_EQ(report.resumed_bytes, 0u);
  EXPECT_THAT(notes.text, HasSubstr("starting over"));
  EXPECT_THAT(notes.text, HasSubstr("with other options"));
}

TEST(PackFaults, a_source_changed_between_two_runs_starts_over) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  interrupt(disk, 70);
  test::store_all(disk, "/source",
                  {{"model.safetensors", test::tiny_weights(test::tiny_tensors(), 2)}});
  Notes notes;
  const PackReport report = *pack_model(disk, small_steps(), notes.callback(), {});
  EXPECT_EQ(report.resumed_bytes, 0u);
  EXPECT_THAT(notes.text, HasSubstr("starting over"));
  EXPECT_NE(test::load_all(disk, "/out/model"), undisturbed());
  EXPECT_TRUE(Container::open(disk, "/out/model").has_value());
}

TEST(PackFaults, a_source_changed_during_a_run_stops_it) {
  for (const int moment : {1, 30, 66}) {
    SimStorage disk;
    test::store_all(disk, "/source", test::tiny_checkpoint());
    int seen = 0;
    const auto change = [&](const PackProgress&) {
      if (seen++ != moment) return;
      test::store_all(disk, "/source",
                      {{"model.safetensors", test::tiny_weights(test::tiny_tensors(), 2)}});
    };
    const Result<PackReport> packed = pack_model(disk, small_steps(), change, {});
    ASSERT_FALSE(packed.has_value()) << moment;
    EXPECT_EQ(packed.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(packed.error().message, HasSubstr("model.safetensors: changed"));
    EXPECT_FALSE(disk.stat("/out/model").has_value());
  }
}

TEST(PackFaults, a_directory_in_the_way_is_not_deleted) {
  SimStorage disk;
  test::store_all(disk, "/source", test::tiny_checkpoint());
  const Files theirs = {{"letters.txt", "dear"}};
  test::store_all(disk, "/out/model.partial", theirs);
  const Result<PackReport> packed = pack(disk, small_steps());
  ASSERT_FALSE(packed.has_value());
  EXPECT_EQ(packed.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(packed.error().message, HasSubstr("letters.txt"));
  EXPECT_EQ(test::load_all(disk, "/out/model.partial"), theirs);
}

TEST(PackFaults, every_large_allocation_may_fail) {
  for (int64_t n = 0;; ++n) {
    SimStorage disk;
    test::store_all(disk, "/source", test::tiny_checkpoint());
    fail_allocation_after(n);
    const Result<PackReport> packed = pack(disk, small_steps());
    fail_allocation_after(-1);
    if (packed) {
      EXPECT_GE(n, 4) << "input, output, scratch and record";
      break;
    }
    EXPECT_EQ(packed.error().code, ErrorCode::kOutOfMemory);
    expect_nothing_half(disk);
    expect_healed(disk);
  }
}

TEST(PackFaults, a_crash_while_replacing_leaves_the_old_or_the_new_model) {
  const auto model_is = [](SimStorage& disk, const std::string& path, const Files& files) {
    return disk.stat(path).has_value() && test::load_all(disk, path) == files;
  };
  PackOptions replace = small_steps();
  replace.force = true;
  replace.experts = DType::kQ2;
  SimStorage reference;
  test::store_all(reference, "/source", test::tiny_checkpoint());
  pack(reference,
       [&] {
         PackOptions o = replace;
         o.force = false;
         return o;
       }())
      .value();
  const Files fresh = test::load_all(reference, "/out/model");
  const uint64_t calls = calls_of_a_run(SimCall::kAny);
  for (uint64_t back = 0; back < 40; ++back) {
    SimStorage disk(back);
    test::store_all(disk, "/source", test::tiny_checkpoint());
    pack(disk, small_steps()).value();
    disk.inject({.after = calls + 10 - back, .times = kForEver, .error = EIO});
    const Result<PackReport> packed = pack(disk, replace);
    static_cast<void>(packed);
    disk.crash();
    EXPECT_TRUE(model_is(disk, "/out/model", undisturbed()) ||
                model_is(disk, "/out/model", fresh) ||
                model_is(disk, "/out/model.old", undisturbed()))
        << back;
    if (!model_is(disk, "/out/model", fresh)) pack(disk, replace).value();
    EXPECT_TRUE(model_is(disk, "/out/model", fresh)) << back;
  }
}

}  // namespace
}  // namespace penstock
