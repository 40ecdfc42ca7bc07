#include "source/normal_tensors.h"

#include <charconv>

#include "base/check.h"
#include "model/registry.h"

namespace penstock {

std::vector<NormalTensor> normal_tensors(const ModelConfig& config) {
  std::vector<NormalTensor> list;
  for (const TensorSpec& spec : list_tensors(config).resident) {
    list.push_back({.name = spec.name,
                    .rows = spec.rows,
                    .columns = spec.columns,
                    .is_plain = spec.stored == StoredAs::kVector,
                    .may_quantise = spec.stored == StoredAs::kMatrix,
                    .is_zero_centred = spec.change == Change::kAddOne});
  }
  return list;
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

std::vector<int64_t> expert_layers(const ModelConfig& config) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const FfnType type = config.ffn_types[static_cast<size_t>(layer)];
    if (type == FfnType::kExperts) layers.push_back(layer);
  }
  if (config.mtp_num_hidden_layers > 0) layers.push_back(config.num_hidden_layers);
  return layers;
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
