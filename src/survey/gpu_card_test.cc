#include "survey/gpu_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock {
namespace {

using testing::HasSubstr;

GpuCard here() {
  return {.name = "NVIDIA Example 4090 of here",
          .memory_bytes = uint64_t{24} << 30,
          .read_gbps = 950,
          .link_gbps = 25,
          .round_trip_us = 20,
          .dispatch_us = 3,
          .origin = "measured here"};
}

TEST(GpuCard, is_found_by_a_part_of_its_name) {
  EXPECT_EQ(find_gpu_card("rtx4090", {}).value().name, "RTX 4090");
  EXPECT_EQ(find_gpu_card("7900-xtx", {}).value().name, "RX 7900 XTX");
  EXPECT_EQ(find_gpu_card("4060", {}).value().name, "RTX 4060");  // not the Ti
  EXPECT_EQ(find_gpu_card("4060 ti", {}).value().memory_bytes, uint64_t{16} << 30);
  EXPECT_TRUE(find_gpu_card("gb10", {}).value().is_unified);
}

TEST(GpuCard, what_was_measured_goes_before_data_sheets) {
  EXPECT_EQ(find_gpu_card("4090", {here()}).value().read_gbps, 950);
  EXPECT_EQ(find_gpu_card("auto", {here()}).value().read_gbps, 950);
  EXPECT_EQ(find_gpu_card("0", {here()}).value().read_gbps, 950);
  EXPECT_FALSE(find_gpu_card("1", {here()}).has_value());
  EXPECT_EQ(find_gpu_card("3060", {here()}).value().origin, "data sheet");
}

TEST(GpuCard, programs_see_less_than_a_data_sheet_says) {
  const GpuCard card = find_gpu_card("h100", {}).value();
  EXPECT_NEAR(card.read_gbps, 2900, 50);  // as one was measured
  EXPECT_NEAR(card.link_gbps, 46, 1);
}

TEST(GpuCard, can_be_given) {
  const GpuCard card = find_gpu_card("memory=24G,gbps=900,link=20,trip=15,unified=on", {}).value();
  EXPECT_EQ(card.memory_bytes, uint64_t{24} << 30);
  EXPECT_EQ(card.read_gbps, 900);
  EXPECT_EQ(card.link_gbps, 20);
  EXPECT_EQ(card.round_trip_us, 15);
  EXPECT_TRUE(card.is_unified);
}

TEST(GpuCard, what_is_wrong_is_refused_by_name) {
  const auto refusal = [](const char* text) {
    const Result<GpuCard> card = find_gpu_card(text, {here()});
    EXPECT_FALSE(card.has_value()) << text;
    return card ? "" : card.error().message;
  };
  for (const char* unknown : {"voodoo", "", " ", "1", "60", "auto-mobile"}) {
    EXPECT_THAT(refusal(unknown), HasSubstr("RTX 3060, ")) << unknown;
    EXPECT_THAT(refusal(unknown), HasSubstr("Example 4090 of here (measured here)"));
  }
  EXPECT_FALSE(find_gpu_card("auto", {}).has_value());
  EXPECT_THAT(refusal("memory=24G"), HasSubstr("lacks"));
  EXPECT_THAT(refusal("gbps=900"), HasSubstr("lacks"));
  EXPECT_THAT(refusal("memory=24G,gbps=fast"), HasSubstr("gbps=fast"));
  EXPECT_THAT(refusal("memory=24G,gbps=-1"), HasSubstr("gbps=-1"));
  EXPECT_THAT(refusal("memory=24G,gbps="), HasSubstr("gbps="));
  EXPECT_THAT(refusal("memory=24G,gbps=nan"), HasSubstr("gbps=nan"));
  EXPECT_THAT(refusal("memory=lots,gbps=900"), HasSubstr("memory=lots"));
  EXPECT_THAT(refusal("memory=24G,gbps=900,colour=3"), HasSubstr("colour=3"));
  EXPECT_THAT(refusal("memory=24G,gbps=900,unified=perhaps"), HasSubstr("unified=perhaps"));
  EXPECT_THAT(refusal("memory=24G,gbps=900,"), HasSubstr("none of"));
}

// docs/gpu.md: layers of ten and of eight experts, packing and barriers included, of one H100.
TEST(DeviceRates, give_the_times_that_one_card_took) {
  // An H200, as it was measured.
  const GpuCard card = find_gpu_card("memory=140G,gbps=4261,link=49,trip=14", {}).value();
  const auto layer_us = [&](DType dtype, double bits, double weights) {
    const DeviceRates rates = device_rates(card, dtype);
    return rates.start_us + weights * bits / 8 / rates.weights_gbps / 1e3;
  };
  const double large = 10.0 * 3 * 4096 * 1024, small = 8.0 * 3 * 2048 * 512;
  EXPECT_NEAR(layer_us(DType::kQ8, 8.5, large), 48.7, 1);
  EXPECT_NEAR(layer_us(DType::kQ4, 4.5, large), 34.7, 1);
  EXPECT_NEAR(layer_us(DType::kQ3, 3.5, large), 34.8, 1);
  EXPECT_NEAR(layer_us(DType::kQ2, 2.5, large), 30.6, 1);
  EXPECT_NEAR(layer_us(DType::kQ8, 8.5, small), 21.2, 1);
  EXPECT_NEAR(layer_us(DType::kQ4, 4.5, small), 17.7, 1);
}

TEST(DeviceRates, follow_what_was_measured) {
  GpuCard card = here();
  const double of_sheet = device_rates(card, DType::kQ4).weights_gbps;
  EXPECT_DOUBLE_EQ(of_sheet, 0.78 * 950);
  // A layer of 70.8 MB in 200 us, of which its start takes 18.9.
  card.experts_gbps = 10.0 * 3 * 4096 * 1024 * 4.5 / 8 / 200 / 1e3;
  EXPECT_NEAR(device_rates(card, DType::kQ4).weights_gbps, 70778.88 / (200 - 18.9), 0.1);
  EXPECT_GT(device_rates(card, DType::kQ8).weights_gbps,
            device_rates(card, DType::kQ4).weights_gbps);
  card.experts_gbps = 1e5;  // faster than it reads: a mistake of measuring, and no faster for it
  EXPECT_LE(device_rates(card, DType::kQ8).weights_gbps, card.read_gbps);
}

TEST(DeviceRates, are_of_the_types_that_devices_compute) {
  for (const DTypeTraits& traits : kDTypes) {
    EXPECT_EQ(device_rates(here(), traits.dtype).read_gbps > 0, traits.is_quantised) << traits.name;
  }
}

}  // namespace
}  // namespace penstock
