// Gates of weights in files' own codings on a GPU, in the manner of gpu_gates_test.cc (G27, G30): run in
// place and packed, experts and the matrices that every token needs, all of them there or some: the
// logits of the processors alone.
#include <gtest/gtest.h>

#include <functional>

#include "gates/gpu_answer.h"
#include "support/gguf_checkpoint.h"
#include "support/mlx_checkpoint.h"

namespace penstock::test {
namespace {

struct CodedModel {
  const char* name;
  std::function<std::string()> path;
};

std::function<std::string()> of_blocks(const char* name, std::vector<BlockType> types) {
  return [=] { return coded_checkpoint(name, types); };
}

std::function<std::string()> of_mlx(const char* name, const Coding& coding) {
  return [=] { return mlx_checkpoint(name, coding); };
}
std::function<std::string()> of_groups(const char* name, int bits, int64_t group) {
  return of_mlx(name, {.kind = Coding::Kind::kAffine, .affine = {.bits = bits, .group = group}});
}

const CodedModel kCodedModels[] = {
    {"q8_0", of_blocks("q8_0", {BlockType::kQ8_0})},
    {"q4_0", of_blocks("q4_0", {BlockType::kQ4_0})},
    {"mxfp4", of_blocks("mxfp4", {BlockType::kMxfp4})},
    {"q4_k", of_blocks("q4_k", {BlockType::kQ4K})},
    {"q5_k", of_blocks("q5_k", {BlockType::kQ5K})},
    {"q6_k", of_blocks("q6_k", {BlockType::kQ6K})},
    {"mlx_4_in_64", of_groups("mlx_4_in_64", 4, 64)},
    {"mlx_4_in_32", of_groups("mlx_4_in_32", 4, 32)},
    {"mlx_8_in_128", of_groups("mlx_8_in_128", 8, 128)},
    {"mlx_6_in_64", of_groups("mlx_6_in_64", 6, 64)},
    {"mlx_mxfp4", of_mlx("mlx_mxfp4", {.kind = Coding::Kind::kMlxMxfp4})},
    {"mixed", of_blocks("mixed", {BlockType::kQ4K, BlockType::kQ6K, BlockType::kQ5K,
                                  BlockType::kQ8_0, BlockType::kQ4K})}};

EngineOptions on_software_gpu(const std::string& model) {
  EngineOptions with = small_options(model);
  with.gpu.device = kSoftwareGpu;
  with.gpu.vram_bytes = kPlentyOfVram;
  with.gpu.trunk = TrunkOnGpu::kOn;
  with.gpu.trunk_matrix_least = 0;
  with.gpu.prompts = SideRule::kDevice;
  with.gpu.probe_inputs = 64;
  with.gpu.validate = true;
  return with;
}

class GpuCodedGate : public ::testing::TestWithParam<int> {
 protected:
  static std::string path() { return kCodedModels[GetParam()].path(); }

  // The second answer at the latest uses what the first one brought over.
  static void expect_answers(Engine& engine, const GpuAnswer& expected) {
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(answer_to(engine, 13) == expected) << i;
    const GpuReport report = *engine.gpu_report();
    EXPECT_GT(report.experts, 0u);
    EXPECT_GT(report.trunk.products, 0u);
    EXPECT_GT(report.trunk.ffns, 0u);
    EXPECT_FALSE(report.is_lost);
    EXPECT_LT(report.num_kernels, 40);
    expect_silent_and_within_its_memory(engine);
  }
};

std::string name_of_coded_model(const ::testing::TestParamInfo<int>& test) {
  return kCodedModels[test.param].name;
}

INSTANTIATE_TEST_SUITE_P(Models, GpuCodedGate,
                         ::testing::Range(0, static_cast<int>(std::size(kCodedModels))),
                         name_of_coded_model);

TEST_P(GpuCodedGate, g27_g30_in_place_and_packed_they_have_the_logits_of_the_processors) {
  const GpuAnswer expected = answer_to(*open_engine(small_options(path())), 13);
  const auto [low, high] = std::ranges::minmax(expected.logits);
  EXPECT_GT(high - low, 1e-2f);  // logits that are all the same would prove nothing
  EXPECT_LT(high - low, 1e4f);
  const auto in_place = open_engine(on_software_gpu(path()));
  expect_answers(*in_place, expected);
  EXPECT_EQ(in_place->gpu_report()->trunk.matrices, in_place->gpu_report()->trunk_fit);
  EXPECT_EQ(in_place->gpu_report()->num_experts, in_place->plan().num_experts);
  EngineOptions with = on_software_gpu(packed(path()));
  with.threads = 3;
  with.chunk_tokens = 5;
  with.num_slots = 9;
  with.gpu.num_slots = 17;
  expect_answers(*open_engine(with), expected);
}

// Types that no kernel knows stay with the processors, which the report says.
TEST(GpuCodedGates, types_that_a_device_does_not_know_stay_here) {
  const std::string path =
      coded_checkpoint("partly", {BlockType::kQ4K, BlockType::kQ5_0, BlockType::kQ4K});
  const GpuAnswer expected = answer_to(*open_engine(small_options(path)), 13);
  const auto engine = open_engine(on_software_gpu(path));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(answer_to(*engine, 13) == expected);
  const GpuReport report = *engine->gpu_report();
  EXPECT_GT(report.experts, 0u);
  EXPECT_LT(report.num_experts, engine->plan().num_experts);
  EXPECT_EQ(report.expert_types_left, std::vector<std::string>({"Q4_K", "Q5_0"}));
  EXPECT_EQ(report.trunk_types_left, std::vector<std::string>({"Q5_0"}));
  expect_silent_and_within_its_memory(*engine);
}

}  // namespace
}  // namespace penstock::test
