// ModelConfig: the architecture of one model, from Hugging Face's config.json, checked.
//
// Says what a model is made of without saying what family it is of: which kind of mixer and of ffn
// each layer has, and their sizes; what a family does not have is 0 or false. Each family reads its
// own config.json (families/, found by registry.h). Every number has a declared range, so that
// nothing is allocated from a hostile file.
//
// Errors  kNotFound / kCorrupt naming the key; kUnsupported for another model_type, an activation
//         or a rope type that we do not have.
// Source  names as in config.json; docs/model.md, Configuration
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace penstock {

enum class LayerType : uint8_t { kLinearAttention, kFullAttention };
enum class FfnType : uint8_t { kExperts, kDense };

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
  std::string model_type;  // as its family writes it
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  std::vector<LayerType> layer_types;  // [num_hidden_layers]
  std::vector<FfnType> ffn_types;      // [num_hidden_layers]
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  bool attention_bias = false;
  bool attn_output_gate = false;  // each head of q_proj has gate rows beside its query rows
  int64_t linear_num_key_heads = 0;
  int64_t linear_num_value_heads = 0;
  int64_t linear_key_head_dim = 0;
  int64_t linear_value_head_dim = 0;
  int64_t linear_conv_kernel_dim = 0;
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t moe_intermediate_size = 0;
  int64_t shared_expert_intermediate_size = 0;  // 0: no shared expert
  int64_t intermediate_size = 0;                // of dense layers; 0 where there are none
  bool norm_topk_prob = true;                   // the chosen experts' weights are made to sum to 1
  double rms_norm_eps = 1e-6;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  int64_t mtp_num_hidden_layers = 0;  // 1: with a block that predicts one token further (MTP)
  RopeConfig rope;
  std::vector<std::string> unknown_keys;  // of config.json: nobody knows what they change

  int64_t rotary_dim() const {
    return static_cast<int64_t>(static_cast<double>(head_dim) * rope.partial_rotary_factor);
  }
  int64_t query_width() const { return num_attention_heads * head_dim; }
  int64_t query_rows() const { return (attn_output_gate ? 2 : 1) * query_width(); }
  int64_t kv_width() const { return num_key_value_heads * head_dim; }
  int64_t num_layers_of(LayerType type) const {
    return std::count(layer_types.begin(), layer_types.end(), type);
  }
  // Positions that the model was made for. YaRN stretches the original context; the recipes for it
  // leave max_position_embeddings as it was.
  int64_t context_max() const {
    const double stretched =
        static_cast<double>(rope.original_max_position_embeddings) * rope.factor;
    return rope.yarn ? std::max(max_position_embeddings, static_cast<int64_t>(stretched))
                     : max_position_embeddings;
  }
  // Layers of the decoder that have experts.
  int64_t num_expert_layers() const {
    return std::count(ffn_types.begin(), ffn_types.end(), FfnType::kExperts);
  }
  // Layers of the expert store: those of the decoder that have experts, in order and without gaps,
  // then the prediction block's.
  int64_t num_moe_layers() const { return num_expert_layers() + mtp_num_hidden_layers; }
  int64_t conv_channels() const {
    return 2 * linear_num_key_heads * linear_key_head_dim +
           linear_num_value_heads * linear_value_head_dim;
  }
};

// By the family of its model_type. `what` names the file in errors.
Result<ModelConfig> parse_model_config(const Json& config, const std::string& what);

// What parse_model_config() reads back to an equal ModelConfig, whatever layout it came from.
Json normal_config(const ModelConfig& config);

}  // namespace penstock
