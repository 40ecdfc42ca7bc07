// Every key of the published config.json files, and what becomes of each: it changes what is computed,
// another value is refused by its name, or it changes nothing, with the reason why that is right. A
// key of a new release that is not here is told as unknown, and wants a row.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "model/config.h"

namespace penstock {
namespace {

using testing::HasSubstr;

enum class Fate {
  kUsed,     // another value is another model
  kRefused,  // another value would be one that we do not compute
  kNothing,  // known, and without effect
};

struct Key {
  const char* name;  // "rope_parameters.factor": of the object within
  Json published;
  Json other;
  Fate fate;
};

// text_config of Qwen3.5-35B-A3B and its larger kin, with fewer layers and experts.
const std::vector<Key>& keys_of_qwen3_5() {
  static const std::vector<Key> kKeys = {
      {"attention_bias", false, true, Fate::kUsed},
      {"attention_dropout", 0.0, 0.5, Fate::kNothing},  // of training
      {"attn_output_gate", true, false, Fate::kRefused},
      {"bos_token_id", nullptr, 7, Fate::kNothing},       // the template writes it
      {"dtype", "bfloat16", "float16", Fate::kNothing},   // tensors say their own
      {"eos_token_id", 248044, 7, Fate::kNothing},        // engine/stop_tokens reads it
      {"full_attention_interval", 4, 2, Fate::kNothing},  // layer_types says it layer by layer
      {"head_dim", 256, 128, Fate::kUsed},
      {"hidden_act", "silu", "gelu", Fate::kRefused},
      {"hidden_size", 2048, 1024, Fate::kUsed},
      {"initializer_range", 0.02, 0.5, Fate::kNothing},  // of training
      {"layer_types",
       {"linear_attention", "linear_attention", "linear_attention", "full_attention"},
       {"linear_attention", "full_attention", "linear_attention", "full_attention"},
       Fate::kUsed},
      {"linear_conv_kernel_dim", 4, 3, Fate::kUsed},
      {"linear_key_head_dim", 128, 64, Fate::kUsed},
      {"linear_num_key_heads", 16, 8, Fate::kUsed},
      {"linear_num_value_heads", 32, 16, Fate::kUsed},
      {"linear_value_head_dim", 128, 64, Fate::kUsed},
      {"mamba_ssm_dtype", "float32", "bfloat16", Fate::kRefused},
      {"max_position_embeddings", 262144, 4096, Fate::kUsed},
      {"mlp_only_layers", Json::array(), Json::array({0}), Fate::kRefused},
      {"model_type", "qwen3_5_moe_text", "qwen9", Fate::kRefused},
      {"moe_intermediate_size", 512, 256, Fate::kUsed},
      {"mtp_num_hidden_layers", 1, 0, Fate::kUsed},
      {"mtp_use_dedicated_embeddings", false, true, Fate::kRefused},
      {"num_attention_heads", 16, 8, Fate::kUsed},
      {"num_experts", 16, 8, Fate::kUsed},
      {"num_experts_per_tok", 8, 4, Fate::kUsed},
      {"num_hidden_layers", 4, 3, Fate::kRefused},  // against layer_types
      {"num_key_value_heads", 2, 1, Fate::kUsed},
      {"output_router_logits", false, true, Fate::kNothing},  // an output of the reference
      {"pad_token_id", nullptr, 7, Fate::kNothing},           // of batches of the reference
      {"rms_norm_eps", 1e-6, 1e-5, Fate::kUsed},
      {"rope_parameters.mrope_interleaved", true, false, Fate::kNothing},  // of pictures
      {"rope_parameters.mrope_section", {11, 11, 10}, {1, 2, 3}, Fate::kNothing},
      {"rope_parameters.partial_rotary_factor", 0.25, 0.5, Fate::kUsed},
      {"rope_parameters.rope_theta", 1e7, 1e6, Fate::kUsed},
      {"rope_parameters.rope_type", "default", "longrope", Fate::kRefused},
      {"router_aux_loss_coef", 0.001, 0.5, Fate::kNothing},  // of training
      {"shared_expert_intermediate_size", 512, 256, Fate::kUsed},
      {"tie_word_embeddings", false, true, Fate::kUsed},
      {"use_cache", true, false, Fate::kNothing},  // of the reference's own loop
      {"vocab_size", 248320, 515, Fate::kUsed},
  };
  return kKeys;
}

// Qwen3-Next-80B-A3B and Qwen3-Coder-Next.
const std::vector<Key>& keys_of_qwen3_next() {
  static const std::vector<Key> kKeys = {
      {"architectures", {"Qwen3NextForCausalLM"}, {"Other"}, Fate::kNothing},  // model_type says it
      {"attention_bias", false, true, Fate::kUsed},
      {"attention_dropout", 0.0, 0.5, Fate::kNothing},
      {"bos_token_id", 151643, 7, Fate::kNothing},
      {"decoder_sparse_step", 1, 2, Fate::kRefused},
      {"eos_token_id", 151645, 7, Fate::kNothing},
      {"full_attention_interval", 4, 2, Fate::kUsed},
      {"head_dim", 256, 128, Fate::kUsed},
      {"hidden_act", "silu", "relu", Fate::kRefused},
      {"hidden_size", 2048, 1024, Fate::kUsed},
      {"initializer_range", 0.02, 0.5, Fate::kNothing},
      {"intermediate_size", 5120, 7, Fate::kNothing},  // of dense layers: there are none
      {"linear_conv_kernel_dim", 4, 3, Fate::kUsed},
      {"linear_key_head_dim", 128, 64, Fate::kUsed},
      {"linear_num_key_heads", 16, 8, Fate::kUsed},
      {"linear_num_value_heads", 32, 16, Fate::kUsed},
      {"linear_value_head_dim", 128, 64, Fate::kUsed},
      {"max_position_embeddings", 262144, 4096, Fate::kUsed},
      {"mlp_only_layers", Json::array(), Json::array({1}), Fate::kRefused},
      {"model_type", "qwen3_next", "qwen9", Fate::kRefused},
      {"moe_intermediate_size", 512, 256, Fate::kUsed},
      {"norm_topk_prob", true, false, Fate::kRefused},
      {"num_attention_heads", 16, 8, Fate::kUsed},
      {"num_experts", 16, 12, Fate::kUsed},
      {"num_experts_per_tok", 10, 4, Fate::kUsed},
      {"num_hidden_layers", 4, 8, Fate::kUsed},
      {"num_key_value_heads", 2, 1, Fate::kUsed},
      {"output_router_logits", false, true, Fate::kNothing},
      {"partial_rotary_factor", 0.25, 0.5, Fate::kUsed},
      {"rms_norm_eps", 1e-6, 1e-5, Fate::kUsed},
      {"rope_scaling", nullptr, {{"rope_type", "yarn"}, {"factor", 2}}, Fate::kUsed},
      {"rope_theta", 1e7, 1e6, Fate::kUsed},
      {"router_aux_loss_coef", 0.001, 0.5, Fate::kNothing},
      {"shared_expert_intermediate_size", 512, 256, Fate::kUsed},
      {"tie_word_embeddings", false, true, Fate::kUsed},
      {"torch_dtype", "bfloat16", "float16", Fate::kNothing},
      {"transformers_version", "4.57.0", "5.0", Fate::kNothing},
      {"use_cache", true, false, Fate::kNothing},
      {"use_sliding_window", false, true, Fate::kRefused},
      {"vocab_size", 151936, 515, Fate::kUsed},
  };
  return kKeys;
}

// Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder-30B-A3B.
const std::vector<Key>& keys_of_qwen3_moe() {
  static const std::vector<Key> kKeys = {
      {"architectures", {"Qwen3MoeForCausalLM"}, {"Other"}, Fate::kNothing},
      {"attention_bias", false, true, Fate::kUsed},
      {"attention_dropout", 0.0, 0.5, Fate::kNothing},
      {"bos_token_id", 151643, 7, Fate::kNothing},
      {"decoder_sparse_step", 1, 2, Fate::kUsed},
      {"eos_token_id", 151645, 7, Fate::kNothing},
      {"head_dim", 128, 64, Fate::kUsed},
      {"hidden_act", "silu", "gelu", Fate::kRefused},
      {"hidden_size", 2048, 1024, Fate::kUsed},
      {"initializer_range", 0.02, 0.5, Fate::kNothing},
      {"intermediate_size", 6144, 7, Fate::kNothing},  // of dense layers: these have none
      {"max_position_embeddings", 40960, 4096, Fate::kUsed},
      {"max_window_layers", 48, 7, Fate::kNothing},  // of a sliding window, which is off
      {"mlp_only_layers", Json::array(), Json::array({1}), Fate::kUsed},
      {"model_type", "qwen3_moe", "qwen9", Fate::kRefused},
      {"moe_intermediate_size", 768, 256, Fate::kUsed},
      {"norm_topk_prob", true, false, Fate::kUsed},
      {"num_attention_heads", 32, 8, Fate::kUsed},
      {"num_experts", 128, 64, Fate::kUsed},
      {"num_experts_per_tok", 8, 4, Fate::kUsed},
      {"num_hidden_layers", 4, 8, Fate::kUsed},
      {"num_key_value_heads", 4, 2, Fate::kUsed},
      {"output_router_logits", false, true, Fate::kNothing},
      {"qkv_bias", false, true, Fate::kRefused},
      {"rms_norm_eps", 1e-6, 1e-5, Fate::kUsed},
      {"rope_scaling", nullptr, {{"rope_type", "linear"}, {"factor", 2}}, Fate::kRefused},
      {"rope_theta", 1e6, 1e7, Fate::kUsed},
      {"router_aux_loss_coef", 0.001, 0.5, Fate::kNothing},
      {"shared_expert_intermediate_size", 0, 64, Fate::kRefused},
      {"sliding_window", nullptr, 4096, Fate::kNothing},  // off
      {"tie_word_embeddings", false, true, Fate::kUsed},
      {"torch_dtype", "bfloat16", "float16", Fate::kNothing},
      {"transformers_version", "4.51.0", "5.0", Fate::kNothing},
      {"use_cache", true, false, Fate::kNothing},
      {"use_qk_norm", true, false, Fate::kRefused},
      {"use_sliding_window", false, true, Fate::kRefused},
      {"vocab_size", 151936, 515, Fate::kUsed},
  };
  return kKeys;
}

void put(Json& config, const std::string& name, const Json& value) {
  const size_t dot = name.find('.');
  if (dot == std::string::npos) {
    config[name] = value;
  } else {
    config[name.substr(0, dot)][name.substr(dot + 1)] = value;
  }
}

Json published(const std::vector<Key>& keys) {
  Json config = Json::object();
  for (const Key& key : keys) put(config, key.name, key.published);
  return config;
}

std::string computed(const ModelConfig& config) {
  return to_text(normal_config(config));
}

class Published : public testing::TestWithParam<const std::vector<Key>& (*)()> {};

TEST_P(Published, every_key_is_known) {
  const Result<ModelConfig> config = parse_model_config(published(GetParam()()), "config.json");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_THAT(config->unknown_keys, testing::IsEmpty());
}

TEST_P(Published, every_key_has_its_effect_and_no_other) {
  const std::vector<Key>& keys = GetParam()();
  const Json base = published(keys);
  const std::string before = computed(*parse_model_config(base, "config.json"));
  for (const Key& key : keys) {
    Json changed = base;
    put(changed, key.name, key.other);
    const Result<ModelConfig> config = parse_model_config(changed, "config.json");
    const std::string name(key.name);
    switch (key.fate) {
      case Fate::kUsed:
        ASSERT_TRUE(config.has_value()) << name << ": " << config.error().message;
        EXPECT_NE(computed(*config), before) << name;
        break;
      case Fate::kNothing:
        ASSERT_TRUE(config.has_value()) << name << ": " << config.error().message;
        EXPECT_EQ(computed(*config), before) << name;
        break;
      case Fate::kRefused:
        ASSERT_FALSE(config.has_value()) << name;
        const bool is_shape = name == "num_hidden_layers" || name == "rope_scaling" ||
                              name == "rope_parameters.rope_type";
        // These are refused by the name of what they do not fit.
        const std::string named = is_shape ? "" : name;
        EXPECT_THAT(config.error().message, HasSubstr(named)) << name;
        break;
    }
  }
}

TEST_P(Published, a_key_of_tomorrow_is_told) {
  Json config = published(GetParam()());
  config["attention_of_tomorrow"] = true;
  EXPECT_THAT(parse_model_config(config, "config.json")->unknown_keys,
              testing::ElementsAre("attention_of_tomorrow"));
}

INSTANTIATE_TEST_SUITE_P(Families, Published,
                         testing::Values(&keys_of_qwen3_5, &keys_of_qwen3_next,
                                         &keys_of_qwen3_moe));

// What stands beside text_config in the checkpoints that also see.
TEST(PublishedOuter, every_key_is_known_and_changes_nothing) {
  Json outer = {{"architectures", {"Qwen3_5MoeForConditionalGeneration"}},
                {"image_token_id", 248056},
                {"model_type", "qwen3_5_moe"},
                {"text_config", published(keys_of_qwen3_5())},
                {"tie_word_embeddings", false},
                {"transformers_version", "4.57.0"},
                {"video_token_id", 248057},
                {"vision_config", {{"depth", 27}}},
                {"vision_end_token_id", 248054},
                {"vision_start_token_id", 248053}};
  const ModelConfig config = *parse_model_config(outer, "config.json");
  EXPECT_THAT(config.unknown_keys, testing::IsEmpty());
  EXPECT_EQ(computed(config), computed(*parse_model_config(outer["text_config"], "config.json")));
}

}  // namespace
}  // namespace penstock
