#include "survey/forecast.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/shapes.h"
#include "survey/gpu_gain.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

// 397B at 4 bits on a PC: 64 GB/s of memory, a drive of 7 GB/s, 48 GiB for us.
ForecastRequest pc_request() {
  const ModelConfig config = config_of(find_model_shape("397b").value(), 0).value();
  ForecastRequest request = forecast_request(config, {.experts = 4.5, .resident = 4.5});
  request.rates = {.flash_gbps = 7, .memory_gbps = 64, .prefill_gflops = 1200, .layer_us = 50};
  request.plan.budget_bytes = uint64_t{48} << 30;
  request.plan.context = 8192;
  request.plan.threads = 8;
  return request;
}

TEST(Forecast, answers_whether_a_large_model_runs_on_a_small_machine_and_how_fast) {
  const Result<Forecast> forecast = make_forecast(pc_request());
  ASSERT_TRUE(forecast.has_value()) << forecast.error().message;
  const double share = static_cast<double>(forecast->plan.num_slots) /
                       static_cast<double>(forecast->plan.num_experts);
  EXPECT_NEAR(share, 0.2, 0.02);
  EXPECT_NEAR(forecast->token.hit_rate, 0.74, 0.03);
  // 26 % of 4.25 GB at 7 GB/s, and 19 % of that in vain: some 185 ms beside 150 ms of memory traffic.
  EXPECT_NEAR(forecast->token.flash_ms, 185, 20);
  EXPECT_GT(forecast->token.overlapped_tps(), 3);
  EXPECT_LT(forecast->token.limit_tps(), 7);
  EXPECT_LE(forecast->plan.total_bytes, uint64_t{48} << 30);
}

TEST(Forecast, more_of_anything_is_never_slower) {
  const Forecast forecast = make_forecast(pc_request()).value();
  EXPECT_GT(forecast.with_memory_tps, forecast.token.overlapped_tps());
  EXPECT_GT(forecast.with_flash_tps, forecast.token.overlapped_tps());
  EXPECT_GT(forecast.with_bandwidth_tps, forecast.token.overlapped_tps());
}

TEST(Forecast, a_budget_below_the_floor_is_refused) {
  ForecastRequest request = pc_request();
  request.plan.budget_bytes = uint64_t{6} << 30;
  const Result<Forecast> forecast = make_forecast(request);
  ASSERT_FALSE(forecast.has_value());
  EXPECT_EQ(forecast.error().code, ErrorCode::kOutOfMemory);
}

TEST(Forecast, asks_for_the_rates_it_needs) {
  ForecastRequest request = pc_request();
  request.rates.prefill_gflops = 0;
  EXPECT_EQ(make_forecast(request).error().code, ErrorCode::kInvalidArgument);
}

TEST(Forecast, budgets_go_from_the_floor_to_every_expert) {
  const std::vector<ForecastRow> rows = over_budgets(pc_request(), 6);
  ASSERT_THAT(rows, SizeIs(6));
  EXPECT_EQ(rows.front().forecast.plan.num_slots, 600);
  EXPECT_EQ(rows.back().forecast.plan.num_slots, 60 * 512);
  EXPECT_EQ(rows.back().forecast.token.flash_bytes, 0);
  for (size_t i = 1; i < rows.size(); ++i) {
    EXPECT_GT(rows[i].x, rows[i - 1].x);
    EXPECT_GE(rows[i].forecast.token.overlapped_tps(), rows[i - 1].forecast.token.overlapped_tps());
  }
}

// Bits enter three times: bytes of a miss, slots, memory traffic.
TEST(Forecast, fewer_bits_save_more_flash_than_their_share) {
  const std::vector<ForecastRow> rows = over_bits(pc_request());
  ASSERT_THAT(rows, SizeIs(5));
  EXPECT_EQ(rows[2].x, 4.5);
  EXPECT_EQ(rows[4].x, 2.5);
  const double saved = rows[2].forecast.token.flash_bytes / rows[4].forecast.token.flash_bytes;
  EXPECT_GT(saved, 4.5 / 2.5);
  EXPECT_GT(rows[4].forecast.plan.num_slots, rows[2].forecast.plan.num_slots);
}

TEST(Forecast, experts_per_token_go_down_from_the_trained_number) {
  const std::vector<ForecastRow> rows = over_experts(pc_request());
  ASSERT_THAT(rows, SizeIs(10));
  EXPECT_EQ(rows.front().x, 10);
  EXPECT_EQ(rows.back().x, 1);
  EXPECT_LT(rows.front().forecast.token.overlapped_tps(),
            rows.back().forecast.token.overlapped_tps());
}

TEST(Forecast, is_told_in_words_and_in_json) {
  const ForecastRequest request = pc_request();
  const Forecast forecast = make_forecast(request).value();
  const std::string text = to_text(forecast, request);
  EXPECT_THAT(text, HasSubstr("bound by"));
  EXPECT_THAT(text, HasSubstr("10 experts in each of 60 layers"));
  const Json json = to_json(forecast);
  EXPECT_EQ(json["terms_ms"].size(), 6u);
  EXPECT_DOUBLE_EQ(json["limit_tps"].get<double>(), forecast.token.limit_tps());
  EXPECT_THAT(to_table(over_experts(request), "experts"), HasSubstr("first token s"));
}

Result<ForecastRequest> with_gpu(const std::string& name, uint64_t vram_bytes,
                                 TrunkOnGpu trunk = TrunkOnGpu::kAuto) {
  ForecastRequest request = pc_request();
  PENSTOCK_TRY(use_gpu(find_gpu_card(name, {}).value(), vram_bytes, trunk, request));
  return request;
}

TEST(ForecastOfAGpu, puts_experts_there_and_the_rest_where_it_was) {
  const ForecastRequest request = with_gpu("4090", 0, TrunkOnGpu::kOff).value();
  EXPECT_EQ(request.gpu->vram_bytes, uint64_t{23} << 30);  // less the margin
  const Forecast forecast = make_forecast(request).value();
  // 23 GiB over 7,077,888 bytes, less rows and copies.
  EXPECT_NEAR(static_cast<double>(forecast.gpu_slots), 3450, 50);
  const Forecast without = make_forecast(pc_request()).value();
  EXPECT_DOUBLE_EQ(forecast.without_gpu_tps, without.token.overlapped_tps());
  EXPECT_GT(forecast.token.overlapped_tps(), without.token.overlapped_tps());
  EXPECT_GT(forecast.token.hit_rate, without.token.hit_rate);
  EXPECT_EQ(forecast.token.dense_ms, without.token.dense_ms);
  EXPECT_EQ(forecast.prompt.compute_s, without.prompt.compute_s);
  EXPECT_LT(forecast.plan.num_slots, without.plan.num_slots);  // rows and copies are in --memory
  EXPECT_LE(forecast.plan.total_bytes, request.plan.budget_bytes);
  EXPECT_THAT(to_text(forecast, request), HasSubstr("RTX 4090 (data sheet), 23.00 GiB of 24.00"));
  EXPECT_EQ(to_json(forecast)["terms_ms"].size(), 9u);
  EXPECT_EQ(forecast.token.device_trunk_ms, 0);
}

TEST(ForecastOfAGpu, puts_matrices_that_every_token_needs_before_experts) {
  const Forecast with = make_forecast(with_gpu("4090", 0).value()).value();
  const Forecast experts = make_forecast(with_gpu("4090", 0, TrunkOnGpu::kOff).value()).value();
  // 60 layers: two or three of a mixer that are large, three of a shared expert; and the head.
  EXPECT_EQ(with.gpu_matrices, with.gpu_matrices_max);
  EXPECT_NEAR(static_cast<double>(with.gpu_matrices), 1 + 60 * 6, 30);
  EXPECT_LT(with.gpu_slots, experts.gpu_slots);
  EXPECT_LT(with.token.dense_ms, experts.token.dense_ms / 4);
  EXPECT_GT(with.token.device_trunk_ms, 0);
  EXPECT_LT(with.token.device_trunk_ms, experts.token.dense_ms);
  EXPECT_GT(with.token.overlapped_tps(), experts.token.overlapped_tps());
  // Little memory: the head and some mixers, and what one slot needs.
  const Forecast small = make_forecast(with_gpu("4090", uint64_t{2} << 30).value()).value();
  EXPECT_GT(small.gpu_matrices, 10);
  EXPECT_LT(small.gpu_matrices, with.gpu_matrices);
  EXPECT_GE(small.gpu_slots, 1);
  EXPECT_GT(small.token.dense_ms, with.token.dense_ms);
}

TEST(ForecastOfAGpu, memory_of_the_machine_is_counted_once) {
  EXPECT_EQ(with_gpu("8060s", 0).error().code, ErrorCode::kInvalidArgument);  // how much?
  const ForecastRequest request = with_gpu("8060s", uint64_t{20} << 30).value();
  const Forecast forecast = make_forecast(request).value();
  const Forecast without = make_forecast(pc_request()).value();
  const int64_t given_up = without.plan.num_slots - forecast.plan.num_slots;
  EXPECT_NEAR(static_cast<double>(given_up), static_cast<double>(forecast.gpu_slots), 100);
}

TEST(ForecastOfAGpu, refuses_what_the_engine_would_refuse) {
  EXPECT_EQ(with_gpu("4090", uint64_t{25} << 30).error().code, ErrorCode::kInvalidArgument);
  const Result<Forecast> little = make_forecast(with_gpu("4090", 1 << 20).value());
  ASSERT_FALSE(little.has_value());
  EXPECT_THAT(little.error().message, HasSubstr("--vram"));
  ForecastRequest wide = pc_request();
  wide.bits.experts = 16;
  EXPECT_EQ(use_gpu(find_gpu_card("4090", {}).value(), 0, TrunkOnGpu::kAuto, wide).error().code,
            ErrorCode::kUnsupported);
}

TEST(GpuGain, a_card_that_is_faster_than_memory_pays_and_a_slow_one_does_not) {
  const GpuCard fast = find_gpu_card("4090", {}).value();
  const GpuGain gain = gpu_gain(pc_request(), fast, 0, TrunkOnGpu::kAuto).value();
  EXPECT_TRUE(gain.pays());
  EXPECT_EQ(gain.trunk, TrunkOnGpu::kOn);
  EXPECT_DOUBLE_EQ(gain.without_tps, make_forecast(pc_request())->token.overlapped_tps());
  EXPECT_DOUBLE_EQ(gain.with_tps,
                   make_forecast(with_gpu("4090", 0).value())->token.overlapped_tps());

  const GpuGain experts = gpu_gain(pc_request(), fast, 0, TrunkOnGpu::kOff).value();
  EXPECT_EQ(experts.trunk, TrunkOnGpu::kOff);
  EXPECT_LT(experts.with_tps, gain.with_tps);

  const GpuCard slow = find_gpu_card("memory=8G,gbps=20,link=2,trip=900", {}).value();
  EXPECT_FALSE(gpu_gain(pc_request(), slow, 0, TrunkOnGpu::kAuto)->pays());
}

TEST(GpuGain, of_the_two_ways_the_faster_one) {
  // Experts come from flash and the card is small: what matrices would take is worth more as slots.
  ForecastRequest request = pc_request();
  request.rates.flash_gbps = 1;
  request.rates.memory_gbps = 500;
  const GpuCard card = find_gpu_card("memory=12G,gbps=600,link=20,trip=60", {}).value();
  const GpuGain best = gpu_gain(request, card, 0, TrunkOnGpu::kAuto).value();
  const GpuGain on = gpu_gain(request, card, 0, TrunkOnGpu::kOn).value();
  const GpuGain off = gpu_gain(request, card, 0, TrunkOnGpu::kOff).value();
  EXPECT_GT(off.with_tps, on.with_tps);
  EXPECT_EQ(best.trunk, TrunkOnGpu::kOff);
  EXPECT_DOUBLE_EQ(best.with_tps, off.with_tps);
}

TEST(GpuGain, too_little_of_its_memory_gains_nothing_and_too_much_is_refused) {
  const GpuCard card = find_gpu_card("4090", {}).value();
  const GpuGain little = gpu_gain(pc_request(), card, 1 << 20, TrunkOnGpu::kAuto).value();
  EXPECT_EQ(little.with_tps, 0);
  EXPECT_FALSE(little.pays());
  EXPECT_EQ(gpu_gain(pc_request(), card, uint64_t{25} << 30, TrunkOnGpu::kAuto).error().code,
            ErrorCode::kInvalidArgument);
}

TEST(GpuGain, of_several_cards_the_one_that_an_engine_takes) {
  std::vector<GpuCard> cards(3);
  cards[0].name = "of the board";
  cards[0].memory_bytes = uint64_t{64} << 30;
  cards[0].is_unified = true;
  cards[1].name = "small";
  cards[1].memory_bytes = uint64_t{8} << 30;
  cards[2].name = "large";
  cards[2].memory_bytes = uint64_t{24} << 30;
  EXPECT_EQ(best_gpu(cards)->name, "large");
  EXPECT_EQ(best_gpu({cards[0]})->name, "of the board");
  EXPECT_EQ(best_gpu({}), nullptr);
}

TEST(ForecastOfAGpu, rows_begin_without_it_and_never_get_slower_from_the_next) {
  const std::vector<ForecastRow> rows = over_vram(with_gpu("5090", 0).value(), 9);
  ASSERT_THAT(rows, SizeIs(9));
  EXPECT_EQ(rows.front().x, 0);
  EXPECT_EQ(rows.front().forecast.gpu_slots, 0);
  EXPECT_DOUBLE_EQ(rows.back().x, 31);
  for (size_t i = 2; i < rows.size(); ++i) {
    EXPECT_GT(rows[i].forecast.gpu_slots, rows[i - 1].forecast.gpu_slots);
    EXPECT_GE(rows[i].forecast.token.overlapped_tps(), rows[i - 1].forecast.token.overlapped_tps());
  }
}

}  // namespace
}  // namespace penstock
