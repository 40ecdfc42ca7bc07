#include "survey/gpu_survey.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gpu/test_gpu.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::Not;

// On the software device that tests run on (scripts/install test); others may be here as well.
TEST(GpuSurvey, lists_the_software_device_as_one_with_the_bits_of_the_cpu) {
  std::vector<std::string> told;
  const Result<GpuSurvey> survey =
      survey_gpus(0.01, [&](const std::string& name) { told.push_back(name); }, {});
  ASSERT_TRUE(survey.has_value()) << survey.error().message;
  EXPECT_EQ(told.size(), survey->gpus.size());
  const SurveyedGpu* software = nullptr;
  for (const SurveyedGpu& report : survey->gpus) {
    if (report.facts.kind == GpuKind::kSoftware) software = &report;
  }
  ASSERT_NE(software, nullptr) << gpu_table(*survey);
  EXPECT_EQ(software->trouble, "");
  ASSERT_TRUE(software->probe.has_value());
  EXPECT_TRUE(software->probe->is_right()) << software->probe->refusal();
  EXPECT_FALSE(software->rates.has_value());
  EXPECT_THAT(gpu_table(*survey), HasSubstr("a software device"));
  const Json json = to_json(*survey);
  ASSERT_EQ(json.size(), survey->gpus.size());
  EXPECT_EQ(json[static_cast<size_t>(software->facts.index)]["kind"], "software");
  EXPECT_EQ(json[static_cast<size_t>(software->facts.index)]["bits_right"], true);
}

TEST(GpuSurvey, ends_when_asked_to) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(survey_gpus(0.01, {}, stop.get_token()).error().code, ErrorCode::kCancelled);
}

TEST(GpuSurvey, tells_absence_trouble_and_rates_in_words) {
  GpuSurvey survey;
  survey.absence = "no GPU can be used without libvulkan.so.1";
  EXPECT_EQ(gpu_table(survey), "GPUs: none; no GPU can be used without libvulkan.so.1\n");
  SurveyedGpu wrong;
  wrong.facts.name = "Example 9000";
  wrong.facts.kind = GpuKind::kDiscrete;
  wrong.facts.memory_bytes = uint64_t{8} << 30;
  wrong.facts.budget_bytes = uint64_t{7} << 30;
  wrong.probe.emplace();
  wrong.probe->rows = {{"sum", 64, 3, "of 1"}};
  wrong.trouble = wrong.probe->refusal();
  survey.gpus = {wrong};
  EXPECT_THAT(gpu_table(survey), HasSubstr("Example 9000, discrete: 8.00 GiB, 7.00 GiB free"));
  EXPECT_THAT(gpu_table(survey), HasSubstr("not to be used: it computes wrong"));
  EXPECT_EQ(to_json(survey)[0]["bits_right"], false);
  SurveyedGpu& right = survey.gpus[0];
  right.probe->rows[0].wrong = 0;
  right.trouble.clear();
  right.rates = {.read_gbps = 3000, .round_trip_us = 14};
  right.experts = {.layer_us = 36, .gbps = 1984, .share_of_read = 0.66};
  EXPECT_THAT(gpu_table(survey), HasSubstr("reads 3000 GB/s"));
  EXPECT_THAT(gpu_table(survey), HasSubstr("66 % of what it reads"));
  EXPECT_THAT(gpu_table(survey), Not(HasSubstr("not to be used")));
  EXPECT_EQ(to_json(survey)[0]["read_gbps"], 3000);
}

}  // namespace
}  // namespace penstock
