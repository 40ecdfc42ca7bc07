// Rates are numbers that were measured: they are there, positive and consistent, on any device.
#include "gpu/gpu_rates.h"

#include "gpu/test_gpu.h"

namespace penstock {
namespace {

using test::GpuTest;

constexpr GpuRatesOptions kQuick = {.buffer_bytes = 4 << 20, .seconds = 0.01};

TEST_F(GpuTest, rates_are_measured) {
  const Result<GpuRates> rates = measure_gpu(*device_, kQuick, {});
  ASSERT_TRUE(rates.has_value()) << rates.error().message;
  EXPECT_GT(rates->read_gbps, 0);
  EXPECT_GT(rates->to_device_gbps, 0);
  EXPECT_GT(rates->from_device_gbps, 0);
  EXPECT_GT(rates->round_trip_us, 0);
  EXPECT_GE(rates->round_trip_p99_us, rates->round_trip_us);
  EXPECT_EQ(device_->allocated_bytes(), 0u);
}

TEST_F(GpuTest, experts_are_measured_in_every_type) {
  for (const DType dtype : {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    const GpuExpertCase small = {
        .dtype = dtype, .hidden_size = 128, .expert_width = 64, .experts = 2, .rows = 3};
    const Result<GpuExpertRate> rate = measure_gpu_experts(*device_, small, kQuick, {});
    ASSERT_TRUE(rate.has_value()) << rate.error().message;
    EXPECT_GT(rate->layer_us, 0);
    EXPECT_GT(rate->gbps, 0);
    EXPECT_GT(rate->share_of_read, 0);
    EXPECT_GT(rate->gproducts, 0);
  }
}

TEST_F(GpuTest, products_of_many_rows_are_measured) {
  for (const int64_t tokens : {1, 8, 40}) {
    const GpuMatmulCase small = {.rows = 100, .columns = 128, .tokens = tokens};
    const Result<GpuMatmulRate> rate = measure_gpu_matmul(*device_, small, kQuick, {});
    ASSERT_TRUE(rate.has_value()) << rate.error().message;
    EXPECT_GT(rate->own_us, 0);
    EXPECT_GT(rate->linked_us, 0);
    EXPECT_GT(rate->gproducts, 0);
  }
}

TEST_F(GpuTest, measuring_ends_when_asked_to_and_says_when_there_is_no_room) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(measure_gpu(*device_, kQuick, stop.get_token()).error().code, ErrorCode::kCancelled);
  const Result<GpuExpertRate> large = measure_gpu_experts(*device_, {}, kQuick, {});
  ASSERT_FALSE(large.has_value());
  EXPECT_EQ(large.error().code, ErrorCode::kOutOfMemory);
  device_ = make_device({.submits_before_loss = 7});
  EXPECT_EQ(measure_gpu(*device_, kQuick, {}).error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace penstock
