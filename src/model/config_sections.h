// What several families' config.json have in common: read, checked and written once.
//
// A family's reader calls the sections that it has and adds what is its own; its writer does the
// same in the same order, so that a packed model's configuration reads back equal.
//
// Errors  as ConfigReader
#pragma once

#include "model/config.h"
#include "model/config_reader.h"

namespace penstock {

// Vocabulary, width, layers, attention heads, norms, positions. Not layer_types.
Result<void> read_decoder(ConfigReader& config, ModelConfig& result);
// Routed experts, and nothing that only some families have beside them.
Result<void> read_experts(ConfigReader& config, ModelConfig& result);
// `rotary_part`: what the family rotates of a head where the file does not say.
Result<void> read_rope(ConfigReader& config, double rotary_part, ModelConfig& result);
// Full attention in every layer whose number is a multiple of `interval` less one.
std::vector<LayerType> every_nth_full(int64_t num_layers, int64_t interval);
// "layer_types", which must be there.
Result<std::vector<LayerType>> read_layer_types(ConfigReader& config, int64_t num_layers);
// Which layers are dense: "mlp_only_layers" and "decoder_sparse_step".
Result<std::vector<FfnType>> read_ffn_types(ConfigReader& config, int64_t num_layers);
// What every family's files carry and no computation of ours depends on.
void ignore_bookkeeping(ConfigReader& config);
// The numbers fit each other.
Result<void> check_geometry(const ConfigReader& config, const ModelConfig& result);

// The same, written: model_type to attention_bias; experts; norms to rope_parameters.
Json write_decoder(const ModelConfig& config);
void write_experts(const ModelConfig& config, Json& json);
void write_rest(const ModelConfig& config, Json& json);

}  // namespace penstock
