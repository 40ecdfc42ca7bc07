#include "engine/gpu_trunk.h"

#include <algorithm>
#include <map>
#include <span>
#include <string_view>

#include "model/registry.h"
#include "model/tensors.h"

namespace penstock {
namespace {

// Rows that the device has at a time: two waves, each long enough that its beginning and end are a small part.
constexpr int64_t kRowsMax = 512;

// What lies there together or not at all.
struct Candidate {
  std::vector<const TensorSpec*> tensors;
  bool is_ffn = false;
};

bool is_head(const ModelConfig& config, const TensorSpec& tensor) {
  return tensor.part == ModelPart::kHead ||
         (config.tie_word_embeddings && tensor.part == ModelPart::kEmbedding);
}

bool is_of_mixer(const TensorSpec& tensor) {
  return tensor.part == ModelPart::kAttention || tensor.part == ModelPart::kDeltaNet ||
         tensor.part == ModelPart::kDraft;
}

bool is_of_ffn(const TensorSpec& tensor) {
  return tensor.part == ModelPart::kSharedExpert || tensor.part == ModelPart::kDenseFfn;
}

std::string_view place_of(const TensorSpec& tensor) {
  const size_t end = tensor.name.rfind('.');
  return std::string_view(tensor.name).substr(0, end == std::string::npos ? 0 : end);
}

// In the order in which they are worth the memory.
std::vector<Candidate> candidates(const ModelConfig& config, const TensorList& list) {
  std::vector<Candidate> head, mixers, ffns;
  for (const TensorSpec& tensor : list.resident) {
    if (tensor.stored != StoredAs::kMatrix) continue;
    if (is_head(config, tensor)) head.push_back({.tensors = {&tensor}});
    if (is_of_mixer(tensor)) mixers.push_back({.tensors = {&tensor}});
    if (!is_of_ffn(tensor)) continue;
    if (ffns.empty() || place_of(*ffns.back().tensors[0]) != place_of(tensor)) {
      ffns.push_back({.tensors = {}, .is_ffn = true});
    }
    ffns.back().tensors.push_back(&tensor);
  }
  for (std::vector<Candidate>* more : {&mixers, &ffns}) {
    std::ranges::move(*more, std::back_inserter(head));
  }
  return head;
}

// The matrices of a candidate; none where they stay with the processors.
std::vector<Matrix> matrices_of(const Candidate& candidate, const ResidentWeights& weights,
                                const GpuOptions& options) {
  std::vector<Matrix> matrices;
  uint64_t bytes = 0;
  for (const TensorSpec* tensor : candidate.tensors) {
    const ResidentWeight* weight = weights.find(tensor->name);
    if (weight == nullptr || weight->is_vector || !has_gpu_product(weight->matrix)) return {};
    const Matrix& matrix = weight->matrix;
    // An FFN's rows stay there from one product to the next.
    if (candidate.is_ffn && matrix.coded.order != nullptr) return {};
    if (options.trunk_takes && !options.trunk_takes(tensor->name)) return {};
    bytes += gpu_matrix_bytes(matrix);
    matrices.push_back(matrix);
  }
  if (bytes < options.trunk_matrix_least) return {};
  // Gate and up go through together.
  if (candidate.is_ffn && gpu_coding_of(matrices[0]) != gpu_coding_of(matrices[1])) return {};
  return matrices;
}

void note_types_left(const Candidate& candidate, const ResidentWeights& weights,
                     std::set<std::string>& types) {
  for (const TensorSpec* tensor : candidate.tensors) {
    const ResidentWeight* weight = weights.find(tensor->name);
    if (weight == nullptr || weight->is_vector || has_gpu_product(weight->matrix)) continue;
    types.insert(weights_name(weight->matrix));
  }
}

TrunkWork work_of(std::span<const Matrix> matrices, bool is_ffn) {
  TrunkWork work;
  for (const Matrix& matrix : matrices) {
    work.bytes += gpu_matrix_bytes(matrix);
  }
  const Matrix& last = matrices.back();
  if (is_ffn) {
    work.ffn_bytes = work.bytes;
    work.ffns = 1;
    work.row_bytes = 2 * static_cast<uint64_t>(last.rows) * sizeof(float);
  } else {
    work.row_bytes = static_cast<uint64_t>(last.rows + last.columns) * sizeof(float);
  }
  return work;
}

}  // namespace

GpuTrunk trunk_rows(const ModelConfig& config, int64_t chunk_tokens) {
  GpuTrunk trunk;
  trunk.rows = std::clamp(chunk_tokens, kGpuFewTokens, kRowsMax);
  trunk.few_rows = kGpuFewTokens;
  trunk.hidden_size = config.hidden_size;
  const TensorList list = list_tensors(config);
  int64_t widest = 0;
  std::map<std::string_view, int64_t> of_mixers;  // rows of what has the same input
  for (const Candidate& candidate : candidates(config, list)) {
    for (const TensorSpec* tensor : candidate.tensors) {
      if (candidate.is_ffn) {
        trunk.ffn_width = std::max({trunk.ffn_width, tensor->rows, tensor->columns});
      } else {
        trunk.columns = std::max(trunk.columns, tensor->columns);
        widest = std::max(widest, tensor->rows);
        const bool is_input = !is_head(config, *tensor) && tensor->columns == config.hidden_size;
        if (is_input) of_mixers[place_of(*tensor)] += tensor->rows;
      }
    }
  }
  trunk.results = kGpuFewTokens * widest;
  for (const auto& [mixer, rows] : of_mixers) {
    trunk.results = std::max(trunk.results, trunk.rows * rows);
  }
  if (trunk.ffn_width == 0) trunk.hidden_size = 0;
  return trunk;
}

ResidentWeights listed_weights(const ModelConfig& config, DType dtype) {
  ResidentWeights weights;
  for (const TensorSpec& tensor : list_tensors(config).resident) {
    if (tensor.stored != StoredAs::kMatrix) continue;
    weights.add_matrix(tensor.name,
                       {.dtype = dtype, .rows = tensor.rows, .columns = tensor.columns});
  }
  return weights;
}

TrunkCandidates::TrunkCandidates(const ModelConfig& config, const ResidentWeights& weights,
                                 const GpuOptions& options, int64_t chunk_tokens)
    : rows_(trunk_rows(config, chunk_tokens)) {
  rows_.few_rows = options.few_tokens;
  rows_.many = options.prompts;
  const TensorList list = list_tensors(config);
  std::map<std::string_view, size_t> mixers;
  for (const Candidate& candidate : candidates(config, list)) {
    Group group{.matrices = matrices_of(candidate, weights, options), .work = {}};
    note_types_left(candidate, weights, types_left_);
    if (group.matrices.empty()) continue;
    const TensorSpec& first = *candidate.tensors.front();
    if (!first.of_prediction_block) {
      group.work = work_of(group.matrices, candidate.is_ffn);
      if (!candidate.is_ffn) {
        group.mixer = mixers.try_emplace(place_of(first), mixers.size() + 1).first->second;
      }
    }
    groups_.push_back(std::move(group));
  }
}

TrunkChoice TrunkCandidates::choose(uint64_t vram_bytes) const {
  TrunkChoice choice{.trunk = rows_};
  const GpuBackend::Bytes rows = GpuBackend::bytes_for_rows(rows_);
  const uint64_t for_rows = rows.on_device + rows.on_host;
  std::vector<Matrix>& chosen = choice.trunk.matrices;
  std::map<size_t, int> calls;  // of a mixer: its inputs share one, its output has another
  for (const Group& group : groups_) {
    choice.fit += std::ssize(group.matrices);
    chosen.insert(chosen.end(), group.matrices.begin(), group.matrices.end());
    if (for_rows + GpuMatrices::bytes_for(chosen) > vram_bytes) {
      chosen.resize(chosen.size() - group.matrices.size());
      continue;
    }
    choice.work.bytes += group.work.bytes;
    choice.work.ffn_bytes += group.work.ffn_bytes;
    choice.work.row_bytes += group.work.row_bytes;
    choice.work.ffns += group.work.ffns;
    if (group.mixer > 0 && ++calls[group.mixer] <= 2) ++choice.work.calls;
  }
  if (!chosen.empty()) choice.bytes = for_rows + GpuMatrices::bytes_for(chosen);
  return choice;
}

}  // namespace penstock
