#include "pack/description_writer.h"

#include "format/text.h"
#include "model/tensors.h"

namespace penstock {

std::string count_text(int64_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.2f} billion", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.2f} million", value / 1e6);
  return fmt::format("{}", count);
}

void write_config(DescriptionWriter& out, const ModelConfig& config) {
  const int64_t full = config.num_layers_of(LayerType::kFullAttention);
  out.fact("model_type", "architecture", config.model_type, config.model_type);
  out.fact("num_hidden_layers", "layers", config.num_hidden_layers,
           fmt::format("{} ({} with full attention)", config.num_hidden_layers, full));
  out.json()["num_full_attention_layers"] = full;
  out.fact("hidden_size", "hidden size", config.hidden_size, fmt::format("{}", config.hidden_size));
  out.fact("vocab_size", "vocabulary", config.vocab_size, fmt::format("{}", config.vocab_size));
  out.fact("max_position_embeddings", "context", config.max_position_embeddings,
           fmt::format("{} tokens{}", config.context_max(), config.rope.yarn ? ", YaRN" : ""));
  out.json()["num_experts"] = config.num_experts;
  out.json()["num_experts_per_tok"] = config.num_experts_per_tok;
  out.line("experts", fmt::format("{} in each layer, {} for a token, width {}", config.num_experts,
                                  config.num_experts_per_tok, config.moe_intermediate_size));
  const int64_t dense = config.num_hidden_layers - config.num_expert_layers();
  if (dense > 0) {
    out.fact("num_dense_layers", "dense layers", dense,
             fmt::format("{} without experts, width {}", dense, config.intermediate_size));
  }
  if (!config.unknown_keys.empty()) {
    std::string keys;
    for (const std::string& key : config.unknown_keys) {
      keys += (keys.empty() ? "" : ", ") + escaped(key);
    }
    out.fact("unknown_config_keys", "not understood", config.unknown_keys, keys);
  }
}

void write_parameters(DescriptionWriter& out, const ModelConfig& config, int64_t more_prediction) {
  const ParameterCount count = count_parameters(config);
  const int64_t active = active_parameters(config, config.num_experts_per_tok);
  const int64_t prediction = count.prediction_block + more_prediction;
  out.json()["parameters"] = count.total();
  out.json()["active_parameters"] = active;
  out.line("parameters",
           fmt::format("{}, {} active", count_text(count.total()), count_text(active)));
  out.fact("mtp_parameters", "prediction block", prediction, count_text(prediction));
}

}  // namespace penstock
