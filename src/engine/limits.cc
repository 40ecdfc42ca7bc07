#include "engine/limits.h"

#include <algorithm>

#include "model/op_shapes.h"

namespace penstock {

ScratchShape scratch_shape(int64_t chunk_tokens, int64_t experts_per_token, int sequences) {
  const int64_t logits_rows = std::clamp<int64_t>(sequences, kLogitsRows, kLogitsRowsMax);
  return {.chunk_tokens = chunk_tokens,
          .experts_per_token = experts_per_token,
          .logits_rows = std::min(logits_rows, chunk_tokens)};
}

BackendLimits backend_limits(const ModelConfig& config, const ScratchShape& shape, int64_t context,
                             int64_t coded_columns, KvForm kv_form) {
  const int64_t value_width = config.linear_num_value_heads * config.linear_value_head_dim;
  return {
      .tokens = shape.chunk_tokens,
      .hidden_size = config.hidden_size,
      .width = std::max({config.hidden_size, config.query_rows(), config.conv_channels(),
                         value_width, config.num_experts,
                         config.mtp_num_hidden_layers > 0 ? 2 * config.hidden_size : 0}),
      .top_k = shape.experts_per_token,
      .expert_width = std::max({config.moe_intermediate_size,
                                config.shared_expert_intermediate_size, config.intermediate_size}),
      .context = context,
      .coded_columns = coded_columns,
      .kv_form = kv_form,
      .attention = attention_shape(config),
      .delta_net = delta_net_shape(config)};
}

}  // namespace penstock
