#include "source/normal_tensors.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

#include "base/check.h"

namespace penstock {
namespace {

class List {
 public:
  explicit List(const ModelConfig& config) : config_(config) {}

  std::vector<NormalTensor> make();

 private:
  void matrix(std::string name, int64_t rows, int64_t columns, bool may_quantise = true) {
    list_.push_back({std::move(name), rows, columns, false, may_quantise});
  }
  void plain(std::string name, int64_t columns, int64_t rows = 1) {
    list_.push_back({std::move(name), rows, columns, true, false});
  }
  void attention(const std::string& base);
  void delta_net(const std::string& base);
  void mlp(const std::string& base);
  void layer(const std::string& base, bool is_attention);

  const ModelConfig& config_;
  std::vector<NormalTensor> list_;
};

void List::attention(const std::string& base) {
  const int64_t hidden = config_.hidden_size;
  const int64_t width = config_.num_attention_heads * config_.head_dim;
  const int64_t kv_width = config_.num_key_value_heads * config_.head_dim;
  struct Projection {
    const char* name;
    int64_t rows, columns;
  };
  const std::array<Projection, 4> projections = {{{"q_proj", 2 * width, hidden},
                                                  {"k_proj", kv_width, hidden},
                                                  {"v_proj", kv_width, hidden},
                                                  {"o_proj", hidden, width}}};
  for (const Projection& projection : projections) {
    const std::string name = base + "self_attn." + projection.name;
    matrix(name, projection.rows, projection.columns);
    if (config_.attention_bias) plain(name + ".bias", projection.rows);
  }
  plain(base + "self_attn.q_norm", config_.head_dim);
  plain(base + "self_attn.k_norm", config_.head_dim);
}

void List::delta_net(const std::string& base) {
  const int64_t hidden = config_.hidden_size;
  const int64_t heads = config_.linear_num_value_heads;
  const int64_t width = heads * config_.linear_value_head_dim;
  const std::string name = base + "linear_attn.";
  matrix(name + "in_proj_qkv", config_.conv_channels(), hidden);
  matrix(name + "in_proj_z", width, hidden);
  matrix(name + "in_proj_b", heads, hidden, false);
  matrix(name + "in_proj_a", heads, hidden, false);
  plain(name + "conv1d", config_.linear_conv_kernel_dim, config_.conv_channels());
  plain(name + "decay", heads);
  plain(name + "dt_bias", heads);
  plain(name + "norm", config_.linear_value_head_dim);
  matrix(name + "out_proj", hidden, width);
}

void List::mlp(const std::string& base) {
  const int64_t hidden = config_.hidden_size;
  const int64_t shared = config_.shared_expert_intermediate_size;
  // The router and the shared gate decide which way a token goes.
  matrix(base + "mlp.gate", config_.num_experts, hidden, false);
  matrix(base + "mlp.shared_expert_gate", 1, hidden, false);
  matrix(base + "mlp.shared_expert.gate_proj", shared, hidden);
  matrix(base + "mlp.shared_expert.up_proj", shared, hidden);
  matrix(base + "mlp.shared_expert.down_proj", hidden, shared);
}

void List::layer(const std::string& base, bool is_attention) {
  plain(base + "input_layernorm", config_.hidden_size);
  if (is_attention) {
    attention(base);
  } else {
    delta_net(base);
  }
  plain(base + "post_attention_layernorm", config_.hidden_size);
  mlp(base);
}

std::vector<NormalTensor> List::make() {
  const int64_t hidden = config_.hidden_size;
  matrix("embed_tokens", config_.vocab_size, hidden);
  for (size_t i = 0; i < config_.layer_types.size(); ++i) {
    layer(fmt::format("layers.{}.", i), config_.layer_types[i] == LayerType::kFullAttention);
  }
  plain("norm", hidden);
  if (!config_.tie_word_embeddings) matrix("lm_head", config_.vocab_size, hidden);
  if (config_.mtp_num_hidden_layers > 0) {
    plain("mtp.pre_fc_norm_embedding", hidden);
    plain("mtp.pre_fc_norm_hidden", hidden);
    plain("mtp.norm", hidden);
    matrix("mtp.fc", hidden, 2 * hidden);
    layer("mtp.", true);
  }
  return std::move(list_);
}

}  // namespace

std::vector<NormalTensor> normal_tensors(const ModelConfig& config) {
  return List(config).make();
}

NormalName split_normal_name(std::string_view name, const ModelConfig& config) {
  constexpr std::string_view kLayers = "layers.", kMtp = "mtp.";
  if (name.starts_with(kMtp)) {
    const std::string_view rest = name.substr(kMtp.size());
    const bool is_of_layer =
        rest.starts_with("self_attn.") || rest.starts_with("mlp.") || rest.ends_with("layernorm");
    return {is_of_layer ? config.num_hidden_layers : -1, true, rest};
  }
  if (!name.starts_with(kLayers)) return {-1, false, name};
  const std::string_view number = name.substr(kLayers.size());
  NormalName result;
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), result.layer);
  PENSTOCK_CHECK(error == std::errc() && end < number.data() + number.size() && *end == '.');
  result.rest = number.substr(static_cast<size_t>(end - number.data()) + 1);
  return result;
}

bool is_zero_centred(std::string_view name) {
  if (name.find("linear_attn.") != std::string_view::npos) return false;
  return name.ends_with("norm") || name.ends_with("pre_fc_norm_embedding") ||
         name.ends_with("pre_fc_norm_hidden");
}

std::vector<int64_t> tiled_value_heads(const ModelConfig& config) {
  const int64_t keys = config.linear_num_key_heads;
  const int64_t per_key = config.linear_num_value_heads / keys;
  std::vector<int64_t> stored;
  for (int64_t head = 0; head < config.linear_num_value_heads; ++head) {
    stored.push_back(head % per_key * keys + head / per_key);
  }
  return stored;
}

}  // namespace penstock
