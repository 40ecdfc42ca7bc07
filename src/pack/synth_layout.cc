#include "pack/synth_layout.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <utility>

#include "compute/panel.h"

namespace penstock {
namespace {

class Layout {
 public:
  Layout(const ModelConfig& config, DType resident) : config_(config), resident_(resident) {}

  std::vector<SynthTensor> make() {
    const int64_t hidden = config_.hidden_size;
    // A residual stream of order one from the start. A tied embedding is the head as well.
    const double embedding_inputs = config_.tie_word_embeddings ? static_cast<double>(hidden) : 1;
    matrix("embed_tokens", config_.vocab_size, hidden, resident_, embedding_inputs);
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      add_layer(fmt::format("layers.{}.", layer), config_.layer_types[static_cast<size_t>(layer)]);
    }
    constant("norm", hidden, 1);
    if (!config_.tie_word_embeddings) matrix("lm_head", config_.vocab_size, hidden);
    if (config_.mtp_num_hidden_layers > 0) add_prediction_block();
    return std::move(tensors_);
  }

 private:
  void add(SynthTensor tensor) {
    tensor.tensor.offset = end_;
    end_ = align_file(end_ + tensor.tensor.bytes);
    tensors_.push_back(std::move(tensor));
  }
  void matrix(const std::string& name, int64_t rows, int64_t columns, DType dtype, double inputs) {
    const auto bytes = static_cast<uint64_t>(panel_bytes(dtype, rows, columns));
    add({{name, dtype, true, rows, columns, 0, bytes},
         SynthTensor::Fill::kRandom,
         static_cast<float>(1 / std::sqrt(inputs))});
  }
  void matrix(const std::string& name, int64_t rows, int64_t columns) {
    matrix(name, rows, columns, resident_, static_cast<double>(columns));
  }
  // The matrices that decide which way a token goes are never quantised.
  void exact_matrix(const std::string& name, int64_t rows, int64_t columns) {
    matrix(name, rows, columns, DType::kBF16, static_cast<double>(columns));
  }
  void plain(const std::string& name, int64_t rows, int64_t columns, SynthTensor::Fill fill,
             double value) {
    const uint64_t bytes = static_cast<uint64_t>(rows * columns) * sizeof(float);
    add({{name, DType::kF32, false, rows, columns, 0, bytes}, fill, static_cast<float>(value)});
  }
  void constant(const std::string& name, int64_t columns, double value) {
    plain(name, 1, columns, SynthTensor::Fill::kConstant, value);
  }

  void add_attention(const std::string& prefix) {
    const int64_t hidden = config_.hidden_size;
    const int64_t width = config_.num_attention_heads * config_.head_dim;
    const int64_t kv_width = config_.num_key_value_heads * config_.head_dim;
    const auto projection = [&](const char* name, int64_t rows, int64_t columns) {
      matrix(prefix + name, rows, columns);
      if (config_.attention_bias) constant(prefix + name + ".bias", rows, 0);
    };
    projection("q_proj", 2 * width, hidden);
    projection("k_proj", kv_width, hidden);
    projection("v_proj", kv_width, hidden);
    projection("o_proj", hidden, width);
    constant(prefix + "q_norm", config_.head_dim, 1);
    constant(prefix + "k_norm", config_.head_dim, 1);
  }

  void add_delta_net(const std::string& prefix) {
    const int64_t hidden = config_.hidden_size;
    const int64_t heads = config_.linear_num_value_heads;
    const int64_t width = heads * config_.linear_value_head_dim;
    const int64_t taps = config_.linear_conv_kernel_dim;
    matrix(prefix + "in_proj_qkv", config_.conv_channels(), hidden);
    matrix(prefix + "in_proj_z", width, hidden);
    exact_matrix(prefix + "in_proj_b", heads, hidden);
    exact_matrix(prefix + "in_proj_a", heads, hidden);
    plain(prefix + "conv1d", config_.conv_channels(), taps, SynthTensor::Fill::kRandom,
          1 / std::sqrt(static_cast<double>(taps)));
    plain(prefix + "decay", 1, heads, SynthTensor::Fill::kDecay, 0);
    constant(prefix + "dt_bias", heads, 0);
    constant(prefix + "norm", config_.linear_value_head_dim, 1);
    matrix(prefix + "out_proj", hidden, width);
  }

  void add_prediction_block() {
    const int64_t hidden = config_.hidden_size;
    constant("mtp.pre_fc_norm_embedding", hidden, 1);
    constant("mtp.pre_fc_norm_hidden", hidden, 1);
    constant("mtp.norm", hidden, 1);
    matrix("mtp.fc", hidden, 2 * hidden);
    add_layer("mtp.", LayerType::kFullAttention);
  }

  void add_layer(const std::string& prefix, LayerType type) {
    const int64_t hidden = config_.hidden_size;
    const int64_t shared = config_.shared_expert_intermediate_size;
    constant(prefix + "input_layernorm", hidden, 1);
    if (type == LayerType::kFullAttention) {
      add_attention(prefix + "self_attn.");
    } else {
      add_delta_net(prefix + "linear_attn.");
    }
    constant(prefix + "post_attention_layernorm", hidden, 1);
    exact_matrix(prefix + "mlp.gate", config_.num_experts, hidden);
    exact_matrix(prefix + "mlp.shared_expert_gate", 1, hidden);
    matrix(prefix + "mlp.shared_expert.gate_proj", shared, hidden);
    matrix(prefix + "mlp.shared_expert.up_proj", shared, hidden);
    matrix(prefix + "mlp.shared_expert.down_proj", hidden, shared);
  }

  const ModelConfig& config_;
  DType resident_;
  std::vector<SynthTensor> tensors_;
  uint64_t end_ = 0;
};

}  // namespace

std::vector<SynthTensor> synthetic_tensors(const ModelConfig& config, DType resident) {
  return Layout(config, resident).make();
}

}  // namespace penstock
