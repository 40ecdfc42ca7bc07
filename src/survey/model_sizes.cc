#include "survey/model_sizes.h"

#include <algorithm>
#include <cmath>

#include "compute/panel.h"
#include "format/manifest.h"
#include "model/registry.h"

namespace penstock {
namespace {

uint64_t bytes_of(int64_t elements, double bits) {
  return static_cast<uint64_t>(std::llround(static_cast<double>(elements) * bits / 8));
}

}  // namespace

double stored_bits(DType dtype) {
  return 8.0 * static_cast<double>(block_bytes(dtype)) /
         static_cast<double>(kPanelRows * kGroupColumns);
}

ModelSizes model_sizes(const ModelConfig& config, const StoredBits& bits) {
  const ParameterCount count = count_parameters(config);
  const int64_t attention = config.num_layers_of(LayerType::kFullAttention);
  const int64_t delta = config.num_layers_of(LayerType::kLinearAttention);
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
  sizes.kv_bytes_per_position = bytes_of(attention * 2 * config.kv_width(), 32);
  return sizes;
}

ModelSizes model_sizes(const ModelConfig& config, const Container& model) {
  const ExpertParts& experts = model.experts();
  ModelSizes sizes = model_sizes(config, StoredBits{.experts = stored_bits(experts.dtype)});
  sizes.expert_bytes = experts.gate_up_bytes + experts.down_bytes;
  sizes.record_bytes = experts.record_bytes;
  sizes.resident_bytes = sizes.dense_bytes = model.resident_bytes();
  sizes.shared_bytes = 0;
  for (const TensorSpec& listed : list_tensors(config).resident) {
    const ResidentTensor* tensor = model.find(listed.name);
    if (tensor == nullptr) continue;  // opening the model says so
    const bool is_looked_up = listed.part == ModelPart::kEmbedding && !config.tie_word_embeddings;
    if (is_looked_up) sizes.dense_bytes -= tensor->bytes;
    if (listed.part == ModelPart::kSharedExpert) sizes.shared_bytes += tensor->bytes;
  }
  return sizes;
}

PromptWork prompt_work(const ModelConfig& config, int64_t experts_per_token) {
  const ParameterCount count = count_parameters(config);
  const int64_t head = config.tie_word_embeddings ? count.embedding : count.head;
  const int64_t products = active_parameters(config, experts_per_token) - head;
  // Multiply-adds of a delta-net state.
  const int64_t states = 4 * config.num_layers_of(LayerType::kLinearAttention) *
                         config.linear_num_value_heads * config.linear_key_head_dim *
                         config.linear_value_head_dim;
  const int64_t attended =
      2 * config.num_layers_of(LayerType::kFullAttention) * config.query_width();
  return {2.0 * static_cast<double>(products + states), 2.0 * static_cast<double>(attended)};
}

double PromptWork::flops(int64_t first, int64_t end) const {
  const double seen = 0.5 * static_cast<double>(first + end);  // on average
  return static_cast<double>(end - first) * (per_position + seen * per_seen_position);
}

}  // namespace penstock
