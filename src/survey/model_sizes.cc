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

DType nearest_dtype(double bits) {
  DType nearest = DType::kQ4;
  for (const DTypeTraits& traits : kDTypes) {
    if (!traits.has_panels) continue;
    const double distance = std::fabs(stored_bits(traits.dtype) - bits);
    if (distance < std::fabs(stored_bits(nearest) - bits)) nearest = traits.dtype;
  }
  return nearest;
}

double expert_bits(const ModelConfig& config, const ModelSizes& sizes) {
  return 8 * static_cast<double>(sizes.expert_bytes) /
         static_cast<double>(count_parameters(config).one_expert);
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

namespace {

// bytes_of_tensor: of a resident one; 0 for one that is not there, as opening the model says.
template <class Bytes>
void add_resident(const ModelConfig& config, const Bytes& bytes_of_tensor, ModelSizes& sizes) {
  sizes.dense_bytes = sizes.resident_bytes;
  sizes.shared_bytes = 0;
  for (const TensorSpec& listed : list_tensors(config).resident) {
    const uint64_t bytes = bytes_of_tensor(listed.name);
    const bool is_looked_up = listed.part == ModelPart::kEmbedding && !config.tie_word_embeddings;
    if (is_looked_up) sizes.dense_bytes -= bytes;
    if (listed.part == ModelPart::kSharedExpert) sizes.shared_bytes += bytes;
  }
}

}  // namespace

ModelSizes model_sizes(const ModelConfig& config, const Container& model) {
  const ExpertParts& experts = model.experts();
  ModelSizes sizes = model_sizes(config, StoredBits{});
  uint64_t payload = 0;
  for (const ExpertRecord& record : experts.layers) {
    payload += record.gate_up_bytes + record.down_bytes;
  }
  sizes.expert_bytes = payload / experts.layers.size();
  sizes.record_bytes = experts.file_bytes() / experts.num_records();
  sizes.resident_bytes = model.resident_bytes();
  const auto bytes_of_tensor = [&](const std::string& name) {
    const ResidentTensor* tensor = model.find(name);
    return tensor == nullptr ? uint64_t{0} : tensor->bytes;
  };
  add_resident(config, bytes_of_tensor, sizes);
  return sizes;
}

ModelSizes model_sizes(const ModelFiles& files) {
  if (files.packed) return model_sizes(files.config, *files.packed);
  const ModelConfig& config = files.config;
  ModelSizes sizes = model_sizes(config, StoredBits{});
  const auto records = static_cast<uint64_t>(config.num_moe_layers() * config.num_experts);
  sizes.expert_bytes = files.expert_bytes() / records;
  // Nine planes at most, each with the blocks that it shares with its neighbours.
  const uint64_t windows = files.source->format() == SourceFormat::kGguf ? 3 : 9;
  sizes.record_bytes = sizes.expert_bytes + windows * kFileAlignment;
  sizes.resident_bytes = files.resident_bytes();
  add_resident(
      config, [&](const std::string& name) { return files.tensor_bytes(name); }, sizes);
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
