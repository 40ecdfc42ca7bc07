#include "engine/gpu_trunk.h"

#include <algorithm>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "model/op_shapes.h"
#include "model/registry.h"
#include "model/tensors.h"

namespace penstock {
namespace {

// Rows that the device has at a time: two waves, each long enough that its beginning and end are a small part.
constexpr int64_t kRowsMax = 512;

// Of these in a delta-net layer, which takes some 150 KB a row there.
constexpr int64_t kWaveRows = 256;

// Of the memory there is, states take at most one part in so many.
constexpr uint64_t kStatesShare = 4;
// And copies of keys and values, with rows of attention.
constexpr uint64_t kAttentionShare = 8;

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

// The two small projections of a delta-net, which do not count where it is done in one go.
bool is_gate(const TensorSpec& tensor) {
  return tensor.part == ModelPart::kDeltaNet &&
         (tensor.name.ends_with("in_proj_b") || tensor.name.ends_with("in_proj_a"));
}
constexpr int kLargeOfDeltaNet = 3;

// The matrices of a candidate; none where they stay with the processors.
std::vector<Matrix> matrices_of(const Candidate& candidate, const ResidentWeights& weights,
                                const GpuOptions& options, bool takes_gates) {
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
  const bool is_part = takes_gates && is_gate(*candidate.tensors[0]);
  if (bytes < options.trunk_matrix_least && !is_part) return {};
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

// Of a pass of few rows; its sequences have a row at least each.
GpuDeltaNetLimits delta_nets_of(const ModelConfig& config, int sequences) {
  const auto layers = std::ranges::count(config.layer_types, LayerType::kLinearAttention);
  const int64_t together = std::min<int64_t>(sequences, kGpuFewTokens);
  const bool has_trial = config.mtp_num_hidden_layers > 0;
  GpuDeltaNetLimits limits = {.shape = delta_net_shape(config),
                              .layers = layers,
                              .rows = kGpuFewTokens,
                              .states = together * (has_trial ? 3 : 2),
                              .hidden_size = config.hidden_size};
  if (!limits.can_be_computed()) limits.layers = 0;
  return limits;
}

// Segments for as many positions as the sequences may have.
GpuAttentionLimits attention_of(const ModelConfig& config, const TrunkCalls& calls) {
  GpuAttentionLimits limits = {
      .shape = attention_shape(config),
      .layers = std::ranges::count(config.layer_types, LayerType::kFullAttention) +
                config.mtp_num_hidden_layers,
      .rows = calls.chunk_tokens,
      .context = calls.context};
  if (!GpuAttention::can_be_computed(limits)) limits.layers = 0;
  const int64_t of_sequence = (calls.context + kKvPagePositions - 1) / kKvPagePositions;
  limits.segments = limits.layers * of_sequence * calls.sequences;
  return limits;
}

// As many segments as so much memory has room for; none where a call of two of each layer does not fit.
void fit_attention(GpuAttentionLimits& limits, uint64_t bytes) {
  if (limits.layers == 0) return;
  const int64_t wanted = std::exchange(limits.segments, 0);
  const GpuAttention::Bytes besides = GpuAttention::bytes_for(limits);
  const uint64_t taken = besides.on_device + besides.on_host;
  const auto fit =
      static_cast<int64_t>(bytes > taken ? (bytes - taken) / limits.segment_bytes() : 0);
  limits.segments = std::min(wanted, fit);
  if (limits.segments < std::min(wanted, 2 * limits.layers)) limits.layers = 0;
}

}  // namespace

GpuTrunk trunk_rows(const ModelConfig& config, const TrunkCalls& calls) {
  const int64_t chunk_tokens = calls.chunk_tokens;
  GpuTrunk trunk;
  trunk.delta_nets = delta_nets_of(config, calls.sequences);
  trunk.attention = attention_of(config, calls);
  if (chunk_tokens > kGpuFewTokens && GpuDeltaNetKernel::suits_many(trunk.delta_nets.shape)) {
    trunk.delta_nets.wave_rows = std::min(chunk_tokens, kWaveRows);
  }
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
                                 const GpuOptions& options, const TrunkCalls& calls)
    : rows_(trunk_rows(config, calls)) {
  rows_.delta_nets.sums = options.delta_net_sums;
  rows_.attention.sums = options.delta_net_sums;
  if (options.attention_work_least >= 0) rows_.attention.work_least = options.attention_work_least;
  rows_.few_rows = options.few_tokens;
  rows_.many = options.prompts;
  if (options.prompts == SideRule::kProcessors) {
    rows_.delta_nets.wave_rows = 0;
    rows_.attention.layers = 0;
  }
  const TensorList list = list_tensors(config);
  std::map<std::string_view, size_t> mixers;
  for (const Candidate& candidate : candidates(config, list)) {
    const bool takes_gates = rows_.delta_nets.layers > 0;
    Group group{.matrices = matrices_of(candidate, weights, options, takes_gates), .work = {}};
    note_types_left(candidate, weights, types_left_);
    if (group.matrices.empty()) continue;
    const TensorSpec& first = *candidate.tensors.front();
    if (!first.of_prediction_block) {
      group.work = work_of(group.matrices, candidate.is_ffn);
      if (!candidate.is_ffn) {
        group.mixer = mixers.try_emplace(place_of(first), mixers.size() + 1).first->second;
        group.is_large_of_delta_net = first.part == ModelPart::kDeltaNet && !is_gate(first);
        group.is_small_gate =
            is_gate(first) && gpu_matrix_bytes(group.matrices[0]) < options.trunk_matrix_least;
      }
    }
    groups_.push_back(std::move(group));
  }
}

TrunkChoice TrunkCandidates::choose(uint64_t vram_bytes) const {
  TrunkChoice choice{.trunk = rows_};
  // States are worth their memory only beside the matrices of their layers.
  GpuDeltaNetLimits& nets = choice.trunk.delta_nets;
  const auto are_too_much = [&] {
    return nets.layers > 0 && kStatesShare * GpuDeltaNets::bytes_for(nets).on_device > vram_bytes;
  };
  if (are_too_much()) nets.wave_rows = 0;
  if (are_too_much()) nets.layers = 0;
  fit_attention(choice.trunk.attention, vram_bytes / kAttentionShare);
  const GpuBackend::Bytes rows = GpuBackend::bytes_for_rows(choice.trunk);
  const uint64_t for_rows = rows.on_device + rows.on_host;
  std::vector<Matrix>& chosen = choice.trunk.matrices;
  struct Mixer {
    int matrices = 0, large = 0;  // the latter of a delta-net
  };
  std::map<size_t, Mixer> mixers;
  const auto fits = [&](const Group& group) {
    choice.fit += std::ssize(group.matrices);
    chosen.insert(chosen.end(), group.matrices.begin(), group.matrices.end());
    if (for_rows + GpuMatrices::bytes_for(chosen) <= vram_bytes) return true;
    chosen.resize(chosen.size() - group.matrices.size());
    return false;
  };
  for (const Group& group : groups_) {
    if (group.is_small_gate || !fits(group)) continue;
    choice.work.bytes += group.work.bytes;
    choice.work.ffn_bytes += group.work.ffn_bytes;
    choice.work.row_bytes += group.work.row_bytes;
    choice.work.ffns += group.work.ffns;
    if (group.mixer == 0) continue;
    ++mixers[group.mixer].matrices;
    mixers[group.mixer].large += group.is_large_of_delta_net ? 1 : 0;
  }
  const bool has_states = choice.trunk.delta_nets.layers > 0;
  choice.trunk.delta_nets.layers = 0;
  for (const auto& [number, mixer] : mixers) {
    // Its inputs share a call, its output has another, but where all of it is one.
    const bool is_block = has_states && mixer.large == kLargeOfDeltaNet;
    choice.trunk.delta_nets.layers += is_block ? 1 : 0;
    choice.work.calls += is_block ? 1 : std::min(mixer.matrices, 2);
  }
  for (const Group& group : groups_) {
    if (!group.is_small_gate || !has_states) continue;
    if (mixers[group.mixer].large == kLargeOfDeltaNet && fits(group)) {
      choice.work.bytes += group.work.bytes;
    }
  }
  if (!chosen.empty()) {
    const GpuBackend::Bytes taken = GpuBackend::bytes_for_rows(choice.trunk);
    choice.bytes = taken.on_device + taken.on_host + GpuMatrices::bytes_for(chosen);
  }
  return choice;
}

}  // namespace penstock
