#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock {
namespace {

using testing::HasSubstr;

Json flat() {
  return {{"model_type", "qwen3_5_moe_text"},
          {"hidden_act", "silu"},
          {"vocab_size", 515},
          {"hidden_size", 64},
          {"num_hidden_layers", 4},
          {"layer_types",
           {"linear_attention", "linear_attention", "linear_attention", "full_attention"}},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 16},
          {"attention_bias", false},
          {"linear_num_key_heads", 2},
          {"linear_num_value_heads", 4},
          {"linear_key_head_dim", 16},
          {"linear_value_head_dim", 32},
          {"linear_conv_kernel_dim", 4},
          {"num_experts", 8},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 32},
          {"shared_expert_intermediate_size", 48},
          {"rms_norm_eps", 1e-6},
          {"max_position_embeddings", 512},
          {"tie_word_embeddings", false},
          {"rope_parameters",
           {{"rope_type", "default"}, {"rope_theta", 1e7}, {"partial_rotary_factor", 0.25}}}};
}

Json with(Json config, const std::string& key, Json value) {
  config[key] = std::move(value);
  return config;
}
Json without(Json config, const std::string& key) {
  config.erase(key);
  return config;
}

Result<ModelConfig> parse(const Json& config) {
  return parse_model_config(config, "config.json");
}

TEST(ModelConfig, reads_the_flat_layout) {
  const ModelConfig config = *parse(flat());
  EXPECT_EQ(config.model_type, "qwen3_5_moe_text");
  EXPECT_EQ(config.vocab_size, 515);
  EXPECT_EQ(config.layer_types[2], LayerType::kLinearAttention);
  EXPECT_EQ(config.layer_types[3], LayerType::kFullAttention);
  EXPECT_EQ(config.rotary_dim(), 4);
  EXPECT_EQ(config.conv_channels(), 2 * 2 * 16 + 4 * 32);
  EXPECT_EQ(config.rope.theta, 1e7);
  EXPECT_FALSE(config.rope.yarn);
}

TEST(ModelConfig, reads_the_nested_layout) {
  const Json nested = {{"model_type", "qwen3_5_moe"},
                       {"vision_config", Json::object()},
                       {"tie_word_embeddings", true},
                       {"text_config", without(flat(), "tie_word_embeddings")}};
  const ModelConfig config = *parse(nested);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_TRUE(config.tie_word_embeddings) << "from the outer object when the inner has none";
}

TEST(ModelConfig, reads_qwen3_next_with_rope_beside_the_other_fields) {
  Json json = without(without(flat(), "layer_types"), "rope_parameters");
  json["model_type"] = "qwen3_next";
  json["full_attention_interval"] = 2;
  json["rope_theta"] = 5000000;
  json["partial_rotary_factor"] = 0.5;
  json["rope_scaling"] = nullptr;
  json["norm_topk_prob"] = true;
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = Json::array();
  json["intermediate_size"] = 5120;
  const ModelConfig config = *parse(json);
  EXPECT_EQ(config.model_type, "qwen3_next");
  EXPECT_EQ(config.layer_types,
            (std::vector<LayerType>{LayerType::kLinearAttention, LayerType::kFullAttention,
                                    LayerType::kLinearAttention, LayerType::kFullAttention}));
  EXPECT_EQ(config.rope.theta, 5e6);
  EXPECT_EQ(config.rotary_dim(), 8);
}

TEST(ModelConfig, reads_yarn_from_either_place) {
  const Json yarn = {{"rope_type", "yarn"},
                     {"rope_theta", 1e7},
                     {"partial_rotary_factor", 0.25},
                     {"factor", 4.0},
                     {"beta_fast", 16},
                     {"attention_factor", 1.25},
                     {"truncate", false},
                     {"original_max_position_embeddings", 128}};
  const ModelConfig newer = *parse(with(flat(), "rope_parameters", yarn));
  EXPECT_TRUE(newer.rope.yarn);
  EXPECT_EQ(newer.rope.factor, 4);
  EXPECT_EQ(newer.rope.original_max_position_embeddings, 128);
  EXPECT_EQ(newer.rope.beta_fast, 16);
  EXPECT_EQ(newer.rope.beta_slow, 1);
  EXPECT_EQ(newer.rope.attention_factor, 1.25);
  EXPECT_FALSE(newer.rope.truncate);

  Json older = without(flat(), "rope_parameters");
  older["rope_theta"] = 1e7;
  older["rope_scaling"] = {{"type", "yarn"}, {"factor", 2}};
  const ModelConfig config = *parse(older);
  EXPECT_TRUE(config.rope.yarn);
  EXPECT_EQ(config.rope.original_max_position_embeddings, 512) << "max_position_embeddings";
  EXPECT_EQ(config.rope.partial_rotary_factor, 0.25) << "the family's value";
}

TEST(ModelConfig, names_every_missing_key) {
  const Json base = flat();
  for (const auto& [key, value] : base.items()) {
    const bool optional =
        key == "hidden_act" || key == "attention_bias" || key == "tie_word_embeddings";
    const Result<ModelConfig> parsed = parse(without(flat(), key));
    EXPECT_EQ(parsed.has_value(), optional) << key;
    if (parsed) continue;
    EXPECT_EQ(parsed.error().code, ErrorCode::kNotFound) << key;
    const std::string named = key == "rope_parameters" ? "rope_theta" : key;
    EXPECT_THAT(parsed.error().message, HasSubstr("\"" + named + "\""));
    EXPECT_THAT(parsed.error().message, HasSubstr("config.json"));
  }
}

TEST(ModelConfig, names_every_key_of_the_wrong_type) {
  const Json base = flat();
  for (const auto& [key, value] : base.items()) {
    for (const Json& wrong : {Json("text"), Json(Json::array({1})), Json(Json::object())}) {
      if (wrong.is_string() && value.is_string()) continue;
      if (wrong.is_object() && value.is_object()) continue;
      const Result<ModelConfig> parsed = parse(with(flat(), key, wrong));
      ASSERT_FALSE(parsed.has_value()) << key << to_text(wrong);
      EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt) << key;
      EXPECT_THAT(parsed.error().message, HasSubstr(key));
    }
  }
}

TEST(ModelConfig, refuses_numbers_out_of_range_naming_the_key) {
  struct Case {
    const char* key;
    Json value;
  };
  const Case cases[] = {{"num_hidden_layers", 1000000000},
                        {"num_hidden_layers", 0},
                        {"num_hidden_layers", UINT64_MAX},
                        {"num_experts", 65537},
                        {"num_experts", -1},
                        {"num_experts_per_tok", 9},  // of 8
                        {"num_experts_per_tok", 0},
                        {"head_dim", 0},
                        {"head_dim", 2.5},
                        {"hidden_size", 1 << 30},
                        {"vocab_size", 0},
                        {"num_key_value_heads", 3},  // of 4
                        {"linear_num_value_heads", 3},
                        {"linear_conv_kernel_dim", 17},
                        {"linear_conv_kernel_dim", 0},
                        {"moe_intermediate_size", 0},
                        {"shared_expert_intermediate_size", 0},
                        {"rms_norm_eps", 0.0},
                        {"rms_norm_eps", -1e-6},
                        {"rms_norm_eps", 2},
                        {"max_position_embeddings", 0},
                        {"layer_types", Json::array({"full_attention"})}};
  for (const Case& c : cases) {
    const Result<ModelConfig> parsed = parse(with(flat(), c.key, c.value));
    ASSERT_FALSE(parsed.has_value()) << c.key << to_text(c.value);
    EXPECT_EQ(parsed.error().code, ErrorCode::kCorrupt) << c.key;
    EXPECT_THAT(parsed.error().message, HasSubstr(c.key));
  }
}

TEST(ModelConfig, refuses_rope_numbers_that_make_no_sense) {
  const auto rope = [](const char* key, Json value) {
    Json parameters = flat()["rope_parameters"];
    parameters[key] = std::move(value);
    return parse(with(flat(), "rope_parameters", parameters));
  };
  EXPECT_FALSE(rope("rope_theta", 0).has_value());
  EXPECT_FALSE(rope("rope_theta", -1e7).has_value());
  EXPECT_FALSE(rope("rope_theta", 1e40).has_value());
  EXPECT_FALSE(rope("partial_rotary_factor", 0).has_value());
  EXPECT_FALSE(rope("partial_rotary_factor", 1.5).has_value());
  EXPECT_FALSE(rope("partial_rotary_factor", 0.1875).has_value()) << "3 components are odd";
  EXPECT_FALSE(rope("partial_rotary_factor", 0.01).has_value()) << "nothing is left to rotate";
  EXPECT_TRUE(rope("partial_rotary_factor", 1).has_value());
  // A number that is none cannot come through JSON, and does not.
  EXPECT_FALSE(parse_json(R"({"rope_theta": NaN})", "config.json").has_value());
  EXPECT_FALSE(parse_json(R"({"rope_theta": 1e999})", "config.json").has_value());
}

TEST(ModelConfig, another_architecture_is_unsupported_by_name) {
  struct Case {
    const char* key;
    Json value;
  };
  const Case cases[] = {{"model_type", "qwen3_5_text"}, {"model_type", "llama"},
                        {"hidden_act", "gelu"},         {"output_gate_type", "sigmoid"},
                        {"attn_output_gate", false},    {"norm_topk_prob", false},
                        {"decoder_sparse_step", 2},     {"mlp_only_layers", Json::array({0})}};
  for (const Case& c : cases) {
    const Result<ModelConfig> parsed = parse(with(flat(), c.key, c.value));
    ASSERT_FALSE(parsed.has_value()) << c.key;
    EXPECT_EQ(parsed.error().code, ErrorCode::kUnsupported) << c.key;
    EXPECT_THAT(parsed.error().message, HasSubstr(c.key));
  }
  Json layers = flat()["layer_types"];
  layers[1] = "sliding_attention";
  EXPECT_EQ(parse(with(flat(), "layer_types", layers)).error().code, ErrorCode::kUnsupported);
  Json rope = flat()["rope_parameters"];
  rope["rope_type"] = "llama3";
  EXPECT_EQ(parse(with(flat(), "rope_parameters", rope)).error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(parse(with(flat(), "output_gate_type", "swish")).has_value());
}

TEST(ModelConfig, refuses_what_is_no_object) {
  EXPECT_FALSE(parse(Json::array()).has_value());
  EXPECT_FALSE(parse(Json(7)).has_value());
  EXPECT_FALSE(parse(Json{{"text_config", 7}}).has_value());
}

Json plain() {
  Json json = without(without(flat(), "layer_types"), "rope_parameters");
  for (const char* key :
       {"linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim",
        "linear_value_head_dim", "linear_conv_kernel_dim", "shared_expert_intermediate_size"}) {
    json.erase(key);
  }
  json["model_type"] = "qwen3_moe";
  json["rope_theta"] = 1000000;
  json["intermediate_size"] = 96;
  return json;
}

TEST(ModelConfig, reads_qwen3_moe) {
  const ModelConfig config = *parse(plain());
  EXPECT_EQ(config.rotary_dim(), 16) << "the whole head";
  EXPECT_FALSE(config.attn_output_gate);
  EXPECT_FALSE(config.norm_topk_prob) << "the reference's own default";
  EXPECT_EQ(config.query_rows(), 4 * 16);
  EXPECT_EQ(config.conv_channels(), 0);
  EXPECT_EQ(config.shared_expert_intermediate_size, 0);
  EXPECT_EQ(config.num_expert_layers(), 4);
  EXPECT_EQ(config.num_layers_of(LayerType::kFullAttention), 4);
  EXPECT_TRUE(parse(with(plain(), "norm_topk_prob", true))->norm_topk_prob);
  EXPECT_EQ(parse(with(without(plain(), "num_experts"), "num_local_experts", 8))->num_experts, 8);
}

TEST(ModelConfig, dense_layers_are_those_off_the_step_and_those_named) {
  using enum FfnType;
  EXPECT_EQ(parse(with(plain(), "decoder_sparse_step", 2))->ffn_types,
            (std::vector<FfnType>{kDense, kExperts, kDense, kExperts}));
  EXPECT_EQ(parse(with(plain(), "mlp_only_layers", Json::array({0, 3})))->ffn_types,
            (std::vector<FfnType>{kDense, kExperts, kExperts, kDense}));
  const Json both =
      with(with(plain(), "decoder_sparse_step", 2), "mlp_only_layers", Json::array({1}));
  const ModelConfig config = *parse(both);
  EXPECT_EQ(config.ffn_types, (std::vector<FfnType>{kDense, kDense, kDense, kExperts}));
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(config.num_moe_layers(), 1);
  const ModelConfig again = *parse(normal_config(config));
  EXPECT_EQ(again.ffn_types, config.ffn_types);
  EXPECT_EQ(again.intermediate_size, 96);
  EXPECT_EQ(to_text(normal_config(again)), to_text(normal_config(config)));

  EXPECT_THAT(parse(without(both, "intermediate_size")).error().message,
              HasSubstr("\"intermediate_size\""));
  EXPECT_FALSE(parse(with(plain(), "mlp_only_layers", Json::array({4}))));
  EXPECT_FALSE(parse(with(plain(), "mlp_only_layers", Json::array({-1}))));
  EXPECT_FALSE(parse(with(plain(), "decoder_sparse_step", 0)));
  EXPECT_EQ(parse(with(plain(), "mlp_only_layers", Json::array({0, 1, 2, 3}))).error().code,
            ErrorCode::kUnsupported);
}

TEST(ModelConfig, qwen3_moe_refuses_what_it_does_not_compute) {
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, Json>>{{"use_sliding_window", true},
                                                 {"use_qk_norm", false},
                                                 {"qkv_bias", true},
                                                 {"shared_expert_intermediate_size", 64}}) {
    const Result<ModelConfig> parsed = parse(with(plain(), key, value));
    ASSERT_FALSE(parsed.has_value()) << key;
    EXPECT_EQ(parsed.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(parsed.error().message, HasSubstr(key));
  }
}

TEST(ModelConfig, remembers_keys_that_nobody_knows) {
  EXPECT_TRUE(parse(flat())->unknown_keys.empty());
  EXPECT_TRUE(parse(plain())->unknown_keys.empty());
  Json json = with(with(plain(), "attention_sinks", true), "rope_scaling", nullptr);
  EXPECT_EQ(parse(json)->unknown_keys, std::vector<std::string>{"attention_sinks"});
  json["rope_scaling"] = {{"type", "yarn"}, {"factor", 2}, {"finetuned", true}};
  EXPECT_EQ(parse(json)->unknown_keys,
            (std::vector<std::string>{"rope_scaling.finetuned", "attention_sinks"}));
  const Json nested = {
      {"model_type", "qwen3_5_moe"}, {"audio_config", Json::object()}, {"text_config", flat()}};
  EXPECT_EQ(parse(nested)->unknown_keys, std::vector<std::string>{"audio_config"});
}

TEST(ModelConfig, yarn_stretches_the_context_whichever_way_it_is_written) {
  Json json = plain();
  EXPECT_EQ(parse(json)->context_max(), 512);
  // The usual recipe: max_position_embeddings is left alone.
  json["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 512}};
  EXPECT_EQ(parse(json)->context_max(), 2048);
  json["max_position_embeddings"] = 2048;
  EXPECT_EQ(parse(json)->context_max(), 2048) << "raised beforehand";
  const ModelConfig again = *parse(normal_config(*parse(json)));
  EXPECT_EQ(again.context_max(), 2048);
}

TEST(ModelConfig, an_older_scaling_beside_newer_parameters_counts) {
  Json json =
      with(flat(), "rope_scaling", {{"type", "yarn"}, {"factor", 2.0}, {"rope_theta", 1e7}});
  EXPECT_TRUE(parse(json)->rope.yarn) << "as the reference reads it";
  json["rope_scaling"] = Json::object();
  EXPECT_FALSE(parse(json)->rope.yarn);
  EXPECT_EQ(parse(json)->rope.theta, 1e7);
  json["rope_scaling"] = {{"factor", 4.0}, {"rope_theta", 1e7}};
  EXPECT_THAT(parse(json).error().message, HasSubstr("\"factor\""));
}

}  // namespace
}  // namespace penstock
