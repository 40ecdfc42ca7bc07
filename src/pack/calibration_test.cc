// Packing for what experts saw: the file of a calibration, and packs made with one.
#include "pack/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "pack/pack.h"
#include "pack/test_checkpoint.h"
#include "support/sim_storage.h"

namespace penstock {
namespace {

using test::Files;
using testing::HasSubstr;

constexpr CalibrationShape kSeenShape = {
    .num_layers = 2, .num_experts = 3, .hidden_size = 64, .top_k = 2, .tokens = 150};

// Inputs of a made-up run, a few tokens at a time. The last expert of layer 1 is never chosen.
void fill(Calibration& calibration, uint32_t seed = 1) {
  for (int64_t layer = 0; layer < kSeenShape.num_layers; ++layer) {
    std::mt19937 random(seed + static_cast<uint32_t>(layer));
    for (int64_t done = 0; done < kSeenShape.tokens;) {
      const int64_t count = std::min<int64_t>(64, kSeenShape.tokens - done);
      Routing routing{.num_tokens = count, .top_k = 2, .experts = {}, .weights = {}};
      std::vector<float> rows(static_cast<size_t>(count * 64));
      for (float& value : rows) value = static_cast<float>(random() % 2001) * 1e-3f - 1.0f;
      for (int64_t t = 0; t < count; ++t) {
        const auto first = static_cast<int32_t>(layer == 1 ? random() % 2 : random() % 3);
        routing.experts.push_back(first);
        routing.experts.push_back(layer == 1 ? 1 - first : (first + 1) % 3);
        routing.weights.push_back(0.75f);
        routing.weights.push_back(0.25f);
      }
      calibration.add(layer, routing, {rows.data(), count, 64, 64});
      done += count;
    }
  }
}

PackOptions options_of(SimStorage& disk, uint32_t seed = 1) {
  PackOptions options;
  options.source = "/source";
  options.target = "/out/model";
  options.experts = DType::kQ2;
  options.quantiser = Quantiser::kSearch;
  options.calibrate = [&disk, seed]() -> Result<Calibration> {
    Calibration made =
        PENSTOCK_TRY(Calibration::create(disk, "/out/model.calibration", kSeenShape, {seed, 2}));
    fill(made, seed);
    PENSTOCK_TRY(made.finish());
    return made;
  };
  return options;
}

Files packed(SimStorage& disk, const PackOptions& options) {
  const Result<PackReport> report = pack_model(disk, options, {}, {});
  EXPECT_TRUE(report.has_value()) << report.error().message;
  EXPECT_EQ(*disk.list("/out"), std::vector<std::string>{"model"}) << "nothing else is left";
  return test::load_all(disk, "/out/model");
}

void store_source(SimStorage& disk) {
  test::store_all(disk, "/source", test::tiny_checkpoint());
  disk.make_directory("/out").value();
}

TEST(Calibration, gives_back_what_each_layer_saw) {
  SimStorage disk;
  disk.make_directory("/out").value();
  {
    Calibration made = *Calibration::create(disk, "/out/seen", kSeenShape, {1, 2});
    fill(made);
    made.finish().value();
    ExpertInputs inputs;
    made.load(1, inputs).value();
    EXPECT_EQ(inputs.tokens(), kSeenShape.tokens);
    std::mt19937 random(2);
    for (size_t i = 0; i < 64; ++i) {
      EXPECT_EQ(inputs.rows[i], f32_to_bf16(static_cast<float>(random() % 2001) * 1e-3f - 1.0f));
    }
    EXPECT_EQ(std::ranges::max(inputs.experts), 1);
    EXPECT_EQ(inputs.weights[1], 0.25f);
    made.load(0, inputs).value();
    EXPECT_EQ(std::ranges::max(inputs.experts), 2);
  }
  EXPECT_TRUE(disk.list("/out")->empty()) << "the file goes with the object";
}

TEST(Calibration, a_disk_that_is_full_is_told_when_it_ends) {
  SimStorage disk;
  disk.make_directory("/out").value();
  Calibration made = *Calibration::create(disk, "/out/seen", kSeenShape, {1, 2});
  disk.inject({.call = SimCall::kWrite, .after = 3, .error = ENOSPC});
  fill(made);
  const Result<void> finished = made.finish();
  ASSERT_FALSE(finished.has_value());
  EXPECT_THAT(finished.error().message, HasSubstr("/out/seen"));
}

TEST(CalibratedPack, same_bytes_for_any_threads_and_after_a_stop_others_for_other_texts) {
  SimStorage disk, other;
  store_source(disk);
  const Files first = packed(disk, options_of(disk));
  EXPECT_THAT(first.at("penstock.json"), HasSubstr("search, calibrated with"));
  store_source(other);
  PackOptions options = options_of(other);
  options.num_threads = 3;
  options.sync_bytes = 4096;
  int calls = 0;
  std::stop_source stop;
  const Result<PackReport> stopped = pack_model(
      other, options,
      [&](const PackProgress&) {
        if (++calls == 40) stop.request_stop();
      },
      stop.get_token());
  ASSERT_FALSE(stopped.has_value());
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(packed(other, options), first);

  SimStorage plain, changed;
  store_source(plain);
  PackOptions uncalibrated = options_of(plain);
  uncalibrated.calibrate = {};
  const Files searched = packed(plain, uncalibrated);
  EXPECT_NE(searched.at("experts.bin"), first.at("experts.bin"));
  EXPECT_EQ(searched.at("resident.bin"), first.at("resident.bin"));
  store_source(changed);
  EXPECT_NE(packed(changed, options_of(changed, 9)).at("experts.bin"), first.at("experts.bin"));
}

// What is lost is counted by what experts saw: another plan's losses, the same for any team.
TEST(CalibratedPack, a_mixture_is_planned_for_what_experts_saw) {
  const auto plan_of = [](bool is_calibrated, int num_threads) {
    SimStorage disk;
    store_source(disk);
    PackOptions options = options_of(disk);
    options.num_threads = num_threads;
    options.target_bytes = uint64_t{1} << 30;
    BitPlan plan;
    options.on_plan = [&](const BitPlan& made) { plan = made; };
    if (!is_calibrated) options.calibrate = {};
    packed(disk, options);
    return plan;
  };
  const BitPlan alone = plan_of(false, 1), seen = plan_of(true, 1);
  EXPECT_GT(seen.loss(), 0);
  EXPECT_NE(seen.loss(), alone.loss());
  EXPECT_EQ(plan_of(true, 3).losses, seen.losses);
  EXPECT_EQ(plan_of(false, 3).losses, alone.losses);
}

TEST(CalibratedPack, a_run_that_failed_leaves_nothing) {
  SimStorage disk;
  store_source(disk);
  PackOptions options = options_of(disk);
  options.calibrate = []() -> Result<Calibration> { return Error{ErrorCode::kIo, "no such text"}; };
  const Result<PackReport> report = pack_model(disk, options, {}, {});
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().message, "no such text");
  EXPECT_TRUE(disk.list("/out")->empty());
}

}  // namespace
}  // namespace penstock
