#include "model/config_sections.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {
namespace {

Result<void> read_yarn(ConfigReader& scaling, int64_t positions_max, RopeConfig& rope) {
  rope.yarn = true;
  rope.factor = PENSTOCK_TRY(scaling.number("factor", 0, 65536));
  if (rope.factor < 1) return scaling.corrupt("\"factor\" must be at least 1");
  rope.original_max_position_embeddings = PENSTOCK_TRY(
      scaling.integer_or("original_max_position_embeddings", positions_max, 1, kPositionsMax));
  rope.beta_fast = PENSTOCK_TRY(scaling.number_or("beta_fast", 32, 0, 1e6));
  rope.beta_slow = PENSTOCK_TRY(scaling.number_or("beta_slow", 1, 0, 1e6));
  rope.attention_factor = PENSTOCK_TRY(scaling.number_or("attention_factor", 0, 0, 1e6));
  rope.truncate = PENSTOCK_TRY(scaling.flag_or("truncate", true));
  if (scaling.has("mscale") || scaling.has("mscale_all_dim")) {
    return scaling.unsupported("\"mscale\" is not supported");
  }
  return {};
}

}  // namespace

Result<void> read_decoder(ConfigReader& config, ModelConfig& result) {
  PENSTOCK_TRY(config.require_word("hidden_act", {"silu", "swish"}));
  result.vocab_size = PENSTOCK_TRY(config.integer("vocab_size", 1, kVocabMax));
  result.hidden_size = PENSTOCK_TRY(config.integer("hidden_size", 1, kWidthMax));
  result.num_hidden_layers = PENSTOCK_TRY(config.integer("num_hidden_layers", 1, kLayersMax));
  result.num_attention_heads = PENSTOCK_TRY(config.integer("num_attention_heads", 1, kHeadsMax));
  result.num_key_value_heads = PENSTOCK_TRY(config.integer("num_key_value_heads", 1, kHeadsMax));
  result.head_dim = PENSTOCK_TRY(config.integer("head_dim", 1, kHeadWidthMax));
  result.attention_bias = PENSTOCK_TRY(config.flag_or("attention_bias", false));
  result.rms_norm_eps = PENSTOCK_TRY(config.number("rms_norm_eps", 0, 1));
  result.max_position_embeddings =
      PENSTOCK_TRY(config.integer("max_position_embeddings", 1, kPositionsMax));
  return {};
}

Result<void> read_experts(ConfigReader& config, ModelConfig& result) {
  // Newer files may call them num_local_experts.
  const bool is_local = !config.has("num_experts") && config.has("num_local_experts");
  result.num_experts =
      PENSTOCK_TRY(config.integer(is_local ? "num_local_experts" : "num_experts", 1, kExpertsMax));
  result.num_experts_per_tok = PENSTOCK_TRY(config.integer("num_experts_per_tok", 1, kExpertsMax));
  result.moe_intermediate_size =
      PENSTOCK_TRY(config.integer("moe_intermediate_size", 1, kWidthMax));
  return {};
}

// Newer files have all of it in rope_parameters; older ones beside the other fields, with the kind
// of scaling in rope_scaling. A file may have both (people add the older one to a newer file): then
// rope_scaling counts, as in the reference.
Result<void> read_rope(ConfigReader& config, double rotary_part, ModelConfig& result) {
  const Json* parameters = config.find("rope_parameters");
  const Json* older = config.find("rope_scaling");
  for (const Json* object : {parameters, older}) {
    if (object != nullptr && !object->is_object()) {
      return config.corrupt("\"rope_parameters\" or \"rope_scaling\" is not an object");
    }
  }
  const bool is_new = older == nullptr || older->empty();
  const Json* scaling_json = is_new ? parameters : older;
  const Json none = Json::object();
  ConfigReader scaling(scaling_json != nullptr ? *scaling_json : none,
                       config.what() + (is_new ? ": \"rope_parameters\"" : ": \"rope_scaling\""));
  RopeConfig& rope = result.rope;
  const auto holder = [&](std::string_view key) -> ConfigReader& {
    return scaling.has(key) ? scaling : config;
  };
  rope.theta = PENSTOCK_TRY(holder("rope_theta").number("rope_theta", 0, 1e30));
  rope.partial_rotary_factor = PENSTOCK_TRY(
      holder("partial_rotary_factor").number_or("partial_rotary_factor", rotary_part, 0, 1));
  const std::string_view type_key = scaling.has("rope_type") ? "rope_type" : "type";
  std::string type = "default";
  if (scaling.has(type_key)) type = PENSTOCK_TRY(scaling.word(type_key));
  if (type == "yarn") {
    PENSTOCK_TRY(read_yarn(scaling, result.max_position_embeddings, rope));
  } else if (type != "default" && type != "mrope") {
    return scaling.unsupported(fmt::format(
        "rope type {} is not supported; supported are default and yarn", to_text(Json(type))));
  }
  // Of pictures; the names of the type; and, with plain rope, what only a scaling would use.
  scaling.ignore({"type", "rope_type", "mrope_section", "mrope_interleaved",
                  "original_max_position_embeddings"});
  for (const std::string& key : scaling.unknown_keys()) {
    if (type == "default" && key == "factor") {
      return scaling.unsupported("\"factor\" without a \"rope_type\" that uses it");
    }
    result.unknown_keys.push_back(
        fmt::format("{}.{}", is_new ? "rope_parameters" : "rope_scaling", key));
  }
  return {};
}

std::vector<LayerType> every_nth_full(int64_t num_layers, int64_t interval) {
  std::vector<LayerType> types;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    types.push_back((layer + 1) % interval == 0 ? LayerType::kFullAttention
                                                : LayerType::kLinearAttention);
  }
  return types;
}

Result<std::vector<LayerType>> read_layer_types(ConfigReader& config, int64_t num_layers) {
  const Json* listed = config.find("layer_types");
  if (listed == nullptr) return config.missing("\"layer_types\" is missing");
  if (!listed->is_array() || static_cast<int64_t>(listed->size()) != num_layers) {
    return config.corrupt(fmt::format("\"layer_types\" must list {} layers", num_layers));
  }
  std::vector<LayerType> types;
  for (const Json& entry : *listed) {
    if (entry == "linear_attention") {
      types.push_back(LayerType::kLinearAttention);
    } else if (entry == "full_attention") {
      types.push_back(LayerType::kFullAttention);
    } else {
      return config.unsupported(fmt::format("\"layer_types\" has {}", to_text(entry)));
    }
  }
  return types;
}

Result<std::vector<FfnType>> read_ffn_types(ConfigReader& config, int64_t num_layers) {
  // A step of 2 gives every second layer experts: those with odd numbers.
  const int64_t step = PENSTOCK_TRY(config.integer_or("decoder_sparse_step", 1, 1, kLayersMax));
  std::vector<FfnType> types;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    types.push_back((layer + 1) % step == 0 ? FfnType::kExperts : FfnType::kDense);
  }
  const Json* dense = config.find("mlp_only_layers");
  if (dense == nullptr) return types;
  if (!dense->is_array()) return config.corrupt("\"mlp_only_layers\" is not a list");
  for (const Json& layer : *dense) {
    if (!layer.is_number_integer() || layer < 0 || layer >= num_layers) {
      return config.corrupt(
          fmt::format("\"mlp_only_layers\" has {}, expected numbers of layers "
                      "from 0 to {}",
                      to_text(layer), num_layers - 1));
    }
    types[layer.get<size_t>()] = FfnType::kDense;
  }
  return types;
}

void ignore_bookkeeping(ConfigReader& config) {
  config.ignore({"architectures", "model_type", "dtype", "torch_dtype", "transformers_version",
                 "_name_or_path", "initializer_range", "use_cache", "attention_dropout",
                 "router_aux_loss_coef", "output_router_logits", "bos_token_id", "eos_token_id",
                 "pad_token_id"});
}

Result<void> check_geometry(const ConfigReader& config, const ModelConfig& result) {
  if (result.num_attention_heads % result.num_key_value_heads != 0) {
    return config.corrupt("\"num_attention_heads\" is not a multiple of \"num_key_value_heads\"");
  }
  const int64_t rotary = result.rotary_dim();
  if (rotary < 2 || rotary % 2 != 0 || rotary > result.head_dim) {
    return config.corrupt(
        fmt::format("\"partial_rotary_factor\" {} of \"head_dim\" {} rotates {} components; it "
                    "must be an even number of at least 2",
                    result.rope.partial_rotary_factor, result.head_dim, rotary));
  }
  if (result.num_experts_per_tok > result.num_experts) {
    return config.corrupt(fmt::format("\"num_experts_per_tok\" {} exceeds \"num_experts\" {}",
                                      result.num_experts_per_tok, result.num_experts));
  }
  return {};
}

Json write_decoder(const ModelConfig& config) {
  Json layer_types = Json::array();
  for (const LayerType type : config.layer_types) {
    layer_types.push_back(type == LayerType::kFullAttention ? "full_attention"
                                                            : "linear_attention");
  }
  return {{"model_type", config.model_type},
          {"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden_size},
          {"num_hidden_layers", config.num_hidden_layers},
          {"layer_types", std::move(layer_types)},
          {"num_attention_heads", config.num_attention_heads},
          {"num_key_value_heads", config.num_key_value_heads},
          {"head_dim", config.head_dim},
          {"attention_bias", config.attention_bias}};
}

void write_experts(const ModelConfig& config, Json& json) {
  json["num_experts"] = config.num_experts;
  json["num_experts_per_tok"] = config.num_experts_per_tok;
  json["moe_intermediate_size"] = config.moe_intermediate_size;
}

void write_rest(const ModelConfig& config, Json& json) {
  const RopeConfig& rope = config.rope;
  Json parameters = {{"rope_type", rope.yarn ? "yarn" : "default"},
                     {"rope_theta", rope.theta},
                     {"partial_rotary_factor", rope.partial_rotary_factor}};
  if (rope.yarn) {
    parameters["factor"] = rope.factor;
    parameters["original_max_position_embeddings"] = rope.original_max_position_embeddings;
    parameters["beta_fast"] = rope.beta_fast;
    parameters["beta_slow"] = rope.beta_slow;
    if (rope.attention_factor != 0) parameters["attention_factor"] = rope.attention_factor;
    parameters["truncate"] = rope.truncate;
  }
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["max_position_embeddings"] = config.max_position_embeddings;
  json["tie_word_embeddings"] = config.tie_word_embeddings;
  json["rope_parameters"] = std::move(parameters);
}

}  // namespace penstock
