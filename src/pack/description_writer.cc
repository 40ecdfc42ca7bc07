#include "pack/description_writer.h"

#include <algorithm>

namespace penstock {

std::string count_text(int64_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.2f} billion", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.2f} million", value / 1e6);
  return fmt::format("{}", count);
}

void write_config(DescriptionWriter& out, const ModelConfig& config) {
  const auto full =
      std::count(config.layer_types.begin(), config.layer_types.end(), LayerType::kFullAttention);
  out.fact("model_type", "architecture", config.model_type, config.model_type);
  out.fact("num_hidden_layers", "layers", config.num_hidden_layers,
           fmt::format("{} ({} with full attention)", config.num_hidden_layers, full));
  out.json()["num_full_attention_layers"] = full;
  out.fact("hidden_size", "hidden size", config.hidden_size, fmt::format("{}", config.hidden_size));
  out.fact("vocab_size", "vocabulary", config.vocab_size, fmt::format("{}", config.vocab_size));
  out.fact(
      "max_position_embeddings", "context", config.max_position_embeddings,
      fmt::format("{} tokens{}", config.max_position_embeddings, config.rope.yarn ? ", YaRN" : ""));
  out.json()["num_experts"] = config.num_experts;
  out.json()["num_experts_per_tok"] = config.num_experts_per_tok;
  out.line("experts", fmt::format("{} in each layer, {} for a token, width {}", config.num_experts,
                                  config.num_experts_per_tok, config.moe_intermediate_size));
}

void write_parameters(DescriptionWriter& out, const ParameterCounts& counts) {
  out.json()["parameters"] = counts.total;
  out.json()["active_parameters"] = counts.active;
  out.line("parameters",
           fmt::format("{}, {} active", count_text(counts.total), count_text(counts.active)));
  out.fact("mtp_parameters", "prediction block", counts.prediction, count_text(counts.prediction));
}

}  // namespace penstock
