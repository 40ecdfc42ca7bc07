#include "model/op_shapes.h"

namespace penstock {

AttentionShape attention_shape(const ModelConfig& config) {
  return {.heads = static_cast<int>(config.num_attention_heads),
          .kv_heads = static_cast<int>(config.num_key_value_heads),
          .head_dim = static_cast<int>(config.head_dim),
          .rotary_dim = static_cast<int>(config.rotary_dim()),
          .rms_norm_eps = static_cast<float>(config.rms_norm_eps),
          .output_gate = config.attn_output_gate};
}

DeltaNetShape delta_net_shape(const ModelConfig& config) {
  return {.key_heads = static_cast<int>(config.linear_num_key_heads),
          .value_heads = static_cast<int>(config.linear_num_value_heads),
          .key_dim = static_cast<int>(config.linear_key_head_dim),
          .value_dim = static_cast<int>(config.linear_value_head_dim),
          .conv_kernel = static_cast<int>(config.linear_conv_kernel_dim),
          .rms_norm_eps = static_cast<float>(config.rms_norm_eps)};
}

}  // namespace penstock
