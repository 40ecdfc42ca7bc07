// The shapes of published models: what a synthetic model or a plan needs without any download.
//
// Only what config.json says about sizes; no weights, no tokenizer. Where there are delta-nets,
// every fourth layer has full attention instead; all layers have experts.
//
// Errors  kInvalidArgument: an unknown name (the sentence lists the known ones), or more layers
//         than a model may have.
// Source  the config.json of each published model, as of November 2026
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"

namespace penstock {

struct ModelShape {
  std::string_view name;        // as published: "Qwen3.5-35B-A3B"
  std::string_view short_name;  // "35b"
  std::string_view model_type;
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t num_hidden_layers;
  int64_t num_attention_heads;
  int64_t num_key_value_heads;
  int64_t head_dim;
  int64_t linear_num_key_heads;  // 0, as the next two: no delta-nets
  int64_t linear_num_value_heads;
  int64_t linear_head_dim;  // of keys and of values
  int64_t num_experts;
  int64_t num_experts_per_tok;
  int64_t moe_intermediate_size;  // the shared expert's as well, where there is one
  int64_t max_position_embeddings;
  double rope_theta;
};

std::span<const ModelShape> model_shapes();

// "known are demo (sluice-74m-a17m), 35b (...)", for messages.
std::string known_shapes();

// By either name; case does not matter.
Result<ModelShape> find_model_shape(std::string_view name);

// The model's configuration with this many layers, which keep the pattern of layer types; 0: its
// own number.
Result<ModelConfig> config_of(const ModelShape& shape, int64_t num_layers);

}  // namespace penstock
