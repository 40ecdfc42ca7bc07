#include "model/tensors.h"

#include <algorithm>

#include "model/registry.h"

namespace penstock {

const TensorSpec* TensorList::find(std::string_view name) const {
  const auto found = std::ranges::find(resident, name, &TensorSpec::name);
  return found == resident.end() ? nullptr : &*found;
}

namespace {

int64_t& part_of(ParameterCount& count, ModelPart part) {
  switch (part) {
    case ModelPart::kEmbedding: return count.embedding;
    case ModelPart::kHead: return count.head;
    case ModelPart::kNorms: return count.norms;
    case ModelPart::kAttention: return count.attention_layers;
    case ModelPart::kDeltaNet: return count.delta_layers;
    case ModelPart::kDenseFfn: return count.dense_ffns;
    case ModelPart::kRouter: return count.routers;
    case ModelPart::kSharedExpert: return count.shared_experts;
    case ModelPart::kSharedGate: return count.shared_gates;
    case ModelPart::kDraft: return count.prediction_block;
  }
  return count.norms;
}

}  // namespace

ParameterCount count_parameters(const ModelConfig& config) {
  const TensorList list = list_tensors(config);
  ParameterCount count;
  for (const TensorSpec& tensor : list.resident) {
    if (tensor.of_prediction_block) {
      count.prediction_block += tensor.elements();
      continue;
    }
    part_of(count, tensor.part) += tensor.elements();
    if (tensor.stored == StoredAs::kExactMatrix) count.kept_matrices += tensor.elements();
    if (tensor.stored == StoredAs::kVector) count.plain_vectors += tensor.elements();
  }
  count.one_expert = 3 * config.hidden_size * config.moe_intermediate_size;
  for (const ExpertSpec& layer : list.experts) {
    (layer.of_prediction_block ? count.prediction_block : count.experts) +=
        config.num_experts * count.one_expert;
  }
  return count;
}

int64_t active_parameters(const ModelConfig& config, int64_t experts_per_token) {
  const ParameterCount count = count_parameters(config);
  const int64_t looked_up = config.tie_word_embeddings ? 0 : count.embedding;
  return count.resident() - looked_up +
         config.num_expert_layers() * experts_per_token * count.one_expert;
}

}  // namespace penstock
