// ModelConfig: the architecture of one model, from Hugging Face's config.json, checked.
//
// Accepts qwen3_5_moe (nested under text_config or flat) and qwen3_next (flat; layer types derived
// from full_attention_interval; rope fields at top level). Every number has a declared range, so
// that nothing is allocated from a hostile file.
//
// Errors  kNotFound / kCorrupt naming the key; kUnsupported for another model_type, an activation
//         or a rope type that we do not have.
// Source  spec sections 2 and 4.6. Names as in config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

enum class LayerType : uint8_t { kLinearAttention, kFullAttention };

struct RopeConfig {
  double theta = 1e7;
  double partial_rotary_factor = 0.25;
  bool yarn = false;
  double factor = 1;  // yarn only, as the next five
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double attention_factor = 0;  // 0: 0.1 ln(factor) + 1
  bool truncate = true;         // floor and ceil of the correction range
};

struct ModelConfig {
  std::string model_type;  // qwen3_5_moe_text or qwen3_next
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  std::vector<LayerType> layer_types;  // [num_hidden_layers]
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  bool attention_bias = false;
  int64_t linear_num_key_heads = 0;
  int64_t linear_num_value_heads = 0;
  int64_t linear_key_head_dim = 0;
  int64_t linear_value_head_dim = 0;
  int64_t linear_conv_kernel_dim = 0;
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t moe_intermediate_size = 0;
  int64_t shared_expert_intermediate_size = 0;
  double rms_norm_eps = 1e-6;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  int64_t mtp_num_hidden_layers = 0;  // 1: with a block that predicts one token further (MTP)
  RopeConfig rope;

  int64_t rotary_dim() const {
    return static_cast<int64_t>(static_cast<double>(head_dim) * rope.partial_rotary_factor);
  }
  // Layers that have experts: those of the decoder, then the prediction block's.
  int64_t num_moe_layers() const { return num_hidden_layers + mtp_num_hidden_layers; }
  int64_t conv_channels() const {
    return 2 * linear_num_key_heads * linear_key_head_dim +
           linear_num_value_heads * linear_value_head_dim;
  }
};

// `what` names the file in errors.
Result<ModelConfig> parse_model_config(const Json& config, const std::string& what);

}  // namespace penstock
