#include "model/shapes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "model/config_reader.h"

namespace penstock {
namespace {

constexpr int64_t kFullAttentionInterval = 4;
constexpr std::string_view kQwen35 = "qwen3_5_moe_text";
constexpr std::string_view kQwen3Next = "qwen3_next";
constexpr std::string_view kQwen3 = "qwen3_moe";

// Columns as in ModelShape.
constexpr ModelShape kShapes[] = {
    {"sluice-74m-a17m", "demo", kQwen35, 8192, 320, 8, 8, 2, 64, 4, 8, 64, 64, 8, 128, 4096, 1e7},
    {"Qwen3.5-35B-A3B", "35b", kQwen35, 248320, 2048, 40, 16, 2, 256, 16, 32, 128, 256, 8, 512,
     262144, 1e7},
    {"Qwen3.6-35B-A3B", "3.6-35b", kQwen35, 248320, 2048, 40, 16, 2, 256, 16, 32, 128, 256, 8, 512,
     262144, 1e7},
    {"Qwen3.5-122B-A10B", "122b", kQwen35, 248320, 3072, 48, 32, 2, 256, 16, 64, 128, 256, 8, 1024,
     262144, 1e7},
    {"Qwen3.5-397B-A17B", "397b", kQwen35, 248320, 4096, 60, 32, 2, 256, 16, 64, 128, 512, 10, 1024,
     262144, 1e7},
    {"Qwen3-Next-80B-A3B", "next-80b", kQwen3Next, 151936, 2048, 48, 16, 2, 256, 16, 32, 128, 512,
     10, 512, 262144, 1e7},
    {"Qwen3-Coder-Next", "coder-next", kQwen3Next, 151936, 2048, 48, 16, 2, 256, 16, 32, 128, 512,
     10, 512, 262144, 5e6},
    {"Qwen3-30B-A3B", "30b", kQwen3, 151936, 2048, 48, 32, 4, 128, 0, 0, 0, 128, 8, 768, 40960,
     1e6},
    {"Qwen3-235B-A22B", "235b", kQwen3, 151936, 4096, 94, 64, 4, 128, 0, 0, 0, 128, 8, 1536, 40960,
     1e6},
    {"Qwen3.8-2.4T-A95B", "2.4t", kQwen35, 248320, 8192, 92, 64, 4, 256, 16, 128, 128, 512, 10,
     2048, 262144, 1e7},
};

bool same_word(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return std::ranges::equal(a, b, {}, lower, lower);
}

}  // namespace

std::span<const ModelShape> model_shapes() {
  return kShapes;
}

std::string known_shapes() {
  std::string known;
  for (const ModelShape& shape : kShapes) {
    known +=
        fmt::format("{}{} ({})", known.empty() ? "known are " : ", ", shape.short_name, shape.name);
  }
  return known;
}

Result<ModelShape> find_model_shape(std::string_view name) {
  for (const ModelShape& shape : kShapes) {
    if (same_word(name, shape.name) || same_word(name, shape.short_name)) return shape;
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("\"{}\" is not a shape that is known here; {}", name, known_shapes())};
}

Result<ModelConfig> config_of(const ModelShape& shape, int64_t num_layers) {
  if (num_layers < 0 || num_layers > kLayersMax) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} layers: a model has 1 to {}", num_layers, kLayersMax)};
  }
  const int64_t layers = num_layers > 0 ? num_layers : shape.num_hidden_layers;
  Json config = {{"model_type", shape.model_type},
                 {"vocab_size", shape.vocab_size},
                 {"hidden_size", shape.hidden_size},
                 {"num_hidden_layers", layers},
                 {"num_attention_heads", shape.num_attention_heads},
                 {"num_key_value_heads", shape.num_key_value_heads},
                 {"head_dim", shape.head_dim},
                 {"num_experts", shape.num_experts},
                 {"num_experts_per_tok", shape.num_experts_per_tok},
                 {"moe_intermediate_size", shape.moe_intermediate_size},
                 {"norm_topk_prob", true},
                 {"rms_norm_eps", 1e-6},
                 {"max_position_embeddings", shape.max_position_embeddings},
                 {"rope_theta", shape.rope_theta}};
  if (shape.linear_num_value_heads > 0) {
    config["full_attention_interval"] = kFullAttentionInterval;
    config["linear_num_key_heads"] = shape.linear_num_key_heads;
    config["linear_num_value_heads"] = shape.linear_num_value_heads;
    config["linear_key_head_dim"] = config["linear_value_head_dim"] = shape.linear_head_dim;
    config["linear_conv_kernel_dim"] = 4;
    config["shared_expert_intermediate_size"] = shape.moe_intermediate_size;
  }
  return parse_model_config(config, std::string(shape.name));
}

}  // namespace penstock
