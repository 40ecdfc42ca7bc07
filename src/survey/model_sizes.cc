#include "survey/model_sizes.h"

#include <algorithm>
#include <cmath>

#include "compute/panel.h"
#include "format/manifest.h"

namespace penstock {
namespace {

int64_t count_attention_layers(const ModelConfig& config) {
  return std::count(config.layer_types.begin(), config.layer_types.end(),
                    LayerType::kFullAttention);
}

uint64_t bytes_of(int64_t elements, double bits) {
  return static_cast<uint64_t>(std::llround(static_cast<double>(elements) * bits / 8));
}

}  // namespace

ParameterCount count_parameters(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t layers = config.num_hidden_layers;
  const int64_t attention = count_attention_layers(config);
  const int64_t delta = layers - attention;
  const int64_t value_heads = config.linear_num_value_heads;
  const int64_t value_width = value_heads * config.linear_value_head_dim;
  const int64_t query_width = config.num_attention_heads * config.head_dim;
  const int64_t kv_width = config.num_key_value_heads * config.head_dim;
  const int64_t biases = config.attention_bias ? 2 * query_width + 2 * kv_width + hidden : 0;
  const int64_t delta_vectors = config.linear_conv_kernel_dim * config.conv_channels() +
                                2 * value_heads + config.linear_value_head_dim;
  const int64_t attention_vectors = 2 * config.head_dim + biases;
  ParameterCount count;
  count.embedding = config.vocab_size * hidden;
  count.head = config.tie_word_embeddings ? 0 : count.embedding;
  count.delta_layers =
      delta *
      (hidden * (config.conv_channels() + 2 * value_width + 2 * value_heads) + delta_vectors);
  count.attention_layers =
      attention * (hidden * (3 * query_width + 2 * kv_width) + attention_vectors);
  count.routers = layers * config.num_experts * hidden;
  count.shared_experts = layers * 3 * hidden * config.shared_expert_intermediate_size;
  count.shared_gates = layers * hidden;
  count.norms = (2 * layers + 1) * hidden;
  count.one_expert = 3 * hidden * config.moe_intermediate_size;
  count.experts = layers * config.num_experts * count.one_expert;
  count.kept_matrices = count.routers + count.shared_gates + delta * 2 * hidden * value_heads;
  count.plain_vectors = count.norms + delta * delta_vectors + attention * attention_vectors;
  return count;
}

int64_t active_parameters(const ModelConfig& config, int64_t experts_per_token) {
  const ParameterCount count = count_parameters(config);
  const int64_t looked_up = config.tie_word_embeddings ? 0 : count.embedding;
  return count.resident() - looked_up +
         config.num_hidden_layers * experts_per_token * count.one_expert;
}

double stored_bits(DType dtype) {
  return 8.0 * static_cast<double>(block_bytes(dtype)) /
         static_cast<double>(kPanelRows * kGroupColumns);
}

ModelSizes model_sizes(const ModelConfig& config, const StoredBits& bits) {
  const ParameterCount count = count_parameters(config);
  const int64_t attention = count_attention_layers(config);
  const int64_t delta = config.num_hidden_layers - attention;
  const int64_t gate_up = 2 * config.hidden_size * config.moe_intermediate_size;
  ModelSizes sizes;
  sizes.expert_bytes = bytes_of(count.one_expert, bits.experts);
  sizes.record_bytes = align_file(bytes_of(gate_up, bits.experts)) +
                       align_file(bytes_of(count.one_expert - gate_up, bits.experts));
  sizes.resident_bytes =
      bytes_of(count.resident() - count.kept_matrices - count.plain_vectors, bits.resident) +
      bytes_of(count.kept_matrices, bits.kept) + bytes_of(count.plain_vectors, bits.plain);
  const int64_t looked_up = config.tie_word_embeddings ? 0 : count.embedding;
  sizes.dense_bytes = sizes.resident_bytes - bytes_of(looked_up, bits.resident);
  sizes.shared_bytes = bytes_of(count.shared_experts, bits.resident);
  const int64_t memory =
      config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim;
  const int64_t history = (config.linear_conv_kernel_dim - 1) * config.conv_channels();
  sizes.recurrent_bytes = bytes_of(delta * (memory + history), 32);
  sizes.kv_bytes_per_position =
      bytes_of(attention * 2 * config.num_key_value_heads * config.head_dim, 32);
  return sizes;
}

double prompt_flops(const ModelConfig& config, int64_t experts_per_token, int64_t first,
                    int64_t end) {
  const ParameterCount count = count_parameters(config);
  const int64_t head = config.tie_word_embeddings ? count.embedding : count.head;
  const auto products = static_cast<double>(active_parameters(config, experts_per_token) - head);
  // Multiply-adds of a delta-net state, and of attention over half of the positions on average.
  const int64_t attention = count_attention_layers(config);
  const double states =
      4.0 *
      static_cast<double>((config.num_hidden_layers - attention) * config.linear_num_value_heads *
                          config.linear_key_head_dim * config.linear_value_head_dim);
  const double seen = 0.5 * static_cast<double>(first + end);
  const double attended =
      2.0 * seen * static_cast<double>(attention * config.num_attention_heads * config.head_dim);
  return 2.0 * static_cast<double>(end - first) * (products + states + attended);
}

}  // namespace penstock
