#include "survey/model_sizes.h"

#include <gtest/gtest.h>

#include "model/shapes.h"

namespace penstock {
namespace {

ModelConfig config_named(std::string_view name) {
  return config_of(find_model_shape(name).value(), 0).value();
}

// Every part in the same number of bits, as the published tables of sizes have it.
StoredBits flat(double bits) {
  return {.experts = bits, .resident = bits, .kept = bits, .plain = bits};
}

// Spec section 8.1: counts that reproduce the byte totals of the published checkpoints.
TEST(ModelSizes, counts_the_parameters_of_published_models) {
  const ParameterCount big = count_parameters(config_named("397b"));
  EXPECT_EQ(big.embedding, 1'017'118'720);
  EXPECT_EQ(big.delta_layers, 5'310'639'360);
  EXPECT_EQ(big.attention_layers, 1'572'871'680);
  EXPECT_EQ(big.routers, 125'829'120);
  EXPECT_EQ(big.shared_experts, 754'974'720);
  EXPECT_EQ(big.shared_gates, 245'760);
  EXPECT_EQ(big.norms, 495'616);
  EXPECT_EQ(big.one_expert, 12'582'912);
  EXPECT_EQ(big.resident(), 9'799'293'696);
  EXPECT_EQ(big.total(), 396'346'350'336);
  EXPECT_EQ(count_parameters(config_named("122b")).total(), 122'111'526'912);
  EXPECT_EQ(count_parameters(config_named("35b")).total(), 34'660'610'688);
  EXPECT_EQ(count_parameters(config_named("next-80b")).total(), 79'674'391'296);
  EXPECT_EQ(count_parameters(config_named("2.4t")).total(), 2'419'804'697'984);
  EXPECT_EQ(count_parameters(config_named("30b")).total(), 30'532'122'624);
  EXPECT_EQ(count_parameters(config_named("235b")).total(), 235'093'634'560);
}

TEST(ModelSizes, counts_the_active_parameters_without_the_embedding_row) {
  EXPECT_EQ(active_parameters(config_named("397b"), 10), 16'331'922'176);
  EXPECT_EQ(active_parameters(config_named("35b"), 8), 2'946'429'568);
  EXPECT_EQ(active_parameters(config_named("2.4t"), 10), 93'253'629'312);
  EXPECT_EQ(active_parameters(config_named("30b"), 8), 3'041'867'776);
}

TEST(ModelSizes, an_embedding_that_is_also_the_head_is_counted_and_read_once) {
  ModelConfig tied = config_named("35b");
  tied.tie_word_embeddings = true;
  const ModelConfig untied = config_named("35b");
  EXPECT_EQ(count_parameters(untied).total() - count_parameters(tied).total(), 508'559'360);
  EXPECT_EQ(active_parameters(tied, 8), active_parameters(untied, 8));
  EXPECT_EQ(model_sizes(tied, flat(8)).dense_bytes, model_sizes(untied, flat(8)).dense_bytes);
}

// Spec section 8.3.
TEST(ModelSizes, bytes_follow_from_the_bits) {
  const ModelConfig config = config_named("397b");
  EXPECT_EQ(model_sizes(config, flat(4.5)).expert_bytes, 7'077'888u);
  EXPECT_EQ(model_sizes(config, flat(2.5)).expert_bytes, 3'932'160u);
  EXPECT_EQ(model_sizes(config, flat(16)).expert_bytes, 25'165'824u);
  EXPECT_EQ(model_sizes(config, flat(4.5)).resident_bytes, 5'512'102'704u);
  EXPECT_EQ(model_sizes(config, flat(8.5)).resident_bytes, 10'411'749'552u);
  // Embedding rows excluded, head included: 8,782,174,976 elements.
  EXPECT_EQ(model_sizes(config, flat(4.5)).dense_bytes, 4'939'973'424u);
}

TEST(ModelSizes, routers_and_vectors_keep_their_precision) {
  const ModelConfig config = config_named("397b");
  const uint64_t all = model_sizes(config, flat(4.5)).resident_bytes;
  const uint64_t kept = model_sizes(config, {.experts = 4.5, .resident = 4.5}).resident_bytes;
  const ParameterCount count = count_parameters(config);
  const double more = static_cast<double>(count.kept_matrices) * (16 - 4.5) / 8 +
                      static_cast<double>(count.plain_vectors) * (32 - 4.5) / 8;
  EXPECT_NEAR(static_cast<double>(kept - all), more, 2);
  EXPECT_EQ(count.kept_matrices, 125'829'120 + 245'760 + 45 * 2 * 4096 * 64);
}

TEST(ModelSizes, a_record_is_padded_part_by_part) {
  const ModelConfig config = config_named("35b");
  const ModelSizes sizes = model_sizes(config, flat(2.73));
  EXPECT_EQ(sizes.record_bytes % 4096, 0u);
  EXPECT_GE(sizes.record_bytes, sizes.expert_bytes);
  EXPECT_LT(sizes.record_bytes, sizes.expert_bytes + 2 * 4096);
  EXPECT_EQ(model_sizes(config, flat(4.5)).record_bytes, 1'769'472u);  // no padding needed
}

// Spec section 8.2: states in f32; the table's KV figures are bf16, half of ours.
TEST(ModelSizes, counts_what_a_sequence_remembers) {
  const ModelSizes big = model_sizes(config_named("397b"), flat(4.5));
  EXPECT_EQ(big.recurrent_bytes, 188'743'680u + 6'635'520u);
  EXPECT_EQ(big.kv_bytes_per_position, 2 * 30'720u);
  EXPECT_EQ(model_sizes(config_named("2.4t"), flat(4.5)).kv_bytes_per_position, 2 * 94'208u);
}

TEST(ModelSizes, stored_bits_include_scales) {
  EXPECT_DOUBLE_EQ(stored_bits(DType::kQ4), 4.5);
  EXPECT_DOUBLE_EQ(stored_bits(DType::kQ8), 8.5);
  EXPECT_DOUBLE_EQ(stored_bits(DType::kQ3), 3.5);
  EXPECT_DOUBLE_EQ(stored_bits(DType::kQ2), 2.5);
  EXPECT_DOUBLE_EQ(stored_bits(DType::kBF16), 16);
  EXPECT_DOUBLE_EQ(stored_bits(DType::kF32), 32);
}

TEST(ModelSizes, later_positions_of_a_prompt_cost_more) {
  const ModelConfig config = config_named("397b");
  const double early = prompt_work(config, 10).flops(0, 512);
  const double late = prompt_work(config, 10).flops(7680, 8192);
  EXPECT_GT(late, early);
  // Attention alone: 15 layers, 32 heads of 256, on average 7,680 positions more, twice.
  EXPECT_NEAR(late - early, 2.0 * 512 * 2.0 * 7680 * 15 * 32 * 256, 1e6);
  // Without attention two operations per active parameter, head excluded, and the states.
  EXPECT_NEAR(prompt_work(config, 10).flops(0, 1) / (2.0 * (16'331'922'176.0 - 1'017'118'720.0)),
              1.0, 0.02);
}

}  // namespace
}  // namespace penstock
