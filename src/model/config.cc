#include "model/config.h"

#include <fmt/format.h>

#include <cmath>

namespace penstock {
namespace {

// Far above every published model, far below what could wrap a product of three of them.
constexpr int64_t kWidthMax = 1 << 17;
constexpr int64_t kHeadsMax = 1 << 12;
constexpr int64_t kHeadWidthMax = 1 << 12;
constexpr int64_t kVocabMax = 1 << 24;
constexpr int64_t kPositionsMax = 1 << 30;

Error unsupported(const std::string& what, const std::string& reason) {
  return {ErrorCode::kUnsupported, fmt::format("{}: {}", what, reason)};
}
Error corrupt(const std::string& what, const std::string& reason) {
  return {ErrorCode::kCorrupt, fmt::format("{}: {}", what, reason)};
}

Result<double> number_in(const Json& json, std::string_view key, const std::string& what,
                         double above, double maximum) {
  const double value = PENSTOCK_TRY(json_number(json, key, what));
  if (!(value > above && value <= maximum)) {
    return corrupt(what, fmt::format("\"{}\" is {}, expected more than {} and at most {}", key,
                                     value, above, maximum));
  }
  return value;
}

Result<bool> bool_or(const Json& json, std::string_view key, const std::string& what,
                     bool otherwise) {
  if (json_find(json, key) == nullptr) return otherwise;
  return json_bool(json, key, what);
}

Result<double> number_or(const Json& json, std::string_view key, const std::string& what,
                         double otherwise, double maximum) {
  if (json_find(json, key) == nullptr) return otherwise;
  return number_in(json, key, what, 0, maximum);
}

// A string key that, when there, must have one of our values.
Result<void> require_word(const Json& json, std::string_view key, const std::string& what,
                          std::initializer_list<std::string_view> known) {
  if (json_find(json, key) == nullptr) return {};
  const std::string value = PENSTOCK_TRY(json_string(json, key, what));
  for (const std::string_view word : known) {
    if (value == word) return {};
  }
  return unsupported(what, fmt::format("\"{}\" {} is not supported, only \"{}\"", key,
                                       to_text(Json(value)), *known.begin()));
}

Result<void> require_bool(const Json& json, std::string_view key, const std::string& what,
                          bool needed) {
  if (PENSTOCK_TRY(bool_or(json, key, what, needed)) == needed) return {};
  return unsupported(what, fmt::format("\"{}\" must be {}", key, needed));
}

// Switches whose other position would be another architecture.
Result<void> check_switches(const Json& json, const std::string& what) {
  PENSTOCK_TRY(require_word(json, "hidden_act", what, {"silu", "swish"}));
  PENSTOCK_TRY(require_word(json, "output_gate_type", what, {"swish", "silu"}));
  PENSTOCK_TRY(require_bool(json, "attn_output_gate", what, true));
  PENSTOCK_TRY(require_bool(json, "norm_topk_prob", what, true));
  if (json_find(json, "decoder_sparse_step") != nullptr &&
      PENSTOCK_TRY(json_int(json, "decoder_sparse_step", what, 0, INT64_MAX)) != 1) {
    return unsupported(what, "\"decoder_sparse_step\" must be 1: every layer has experts");
  }
  const Json* dense_layers = json_find(json, "mlp_only_layers");
  if (dense_layers != nullptr && !(dense_layers->is_array() && dense_layers->empty())) {
    return unsupported(what, "\"mlp_only_layers\" must be empty: every layer has experts");
  }
  return {};
}

Result<std::string> parse_model_type(const Json& config, const Json& text,
                                     const std::string& what) {
  const std::string outer = PENSTOCK_TRY(json_string(config, "model_type", what));
  std::string inner = outer;
  if (&text != &config && json_find(text, "model_type") != nullptr) {
    inner = PENSTOCK_TRY(json_string(text, "model_type", what));
  }
  if (inner == "qwen3_5_moe" || inner == "qwen3_5_moe_text") return std::string("qwen3_5_moe_text");
  if (inner == "qwen3_next") return inner;
  return unsupported(what, fmt::format("\"model_type\" {} is not supported; supported are "
                                       "qwen3_5_moe and qwen3_next",
                                       to_text(Json(inner))));
}

Result<std::vector<LayerType>> parse_layer_types(const Json& json, const std::string& what,
                                                 int64_t num_layers) {
  std::vector<LayerType> types;
  const Json* listed = json_find(json, "layer_types");
  if (listed == nullptr) {
    if (json_find(json, "full_attention_interval") == nullptr) {
      return Error{ErrorCode::kNotFound,
                   what + ": neither \"layer_types\" nor \"full_attention_interval\""};
    }
    const int64_t interval = PENSTOCK_TRY(json_int(json, "full_attention_interval", what, 1, 1024));
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      types.push_back((layer + 1) % interval == 0 ? LayerType::kFullAttention
                                                  : LayerType::kLinearAttention);
    }
    return types;
  }
  if (!listed->is_array() || static_cast<int64_t>(listed->size()) != num_layers) {
    return corrupt(what, fmt::format("\"layer_types\" must list {} layers", num_layers));
  }
  for (const Json& entry : *listed) {
    if (entry == "linear_attention") {
      types.push_back(LayerType::kLinearAttention);
    } else if (entry == "full_attention") {
      types.push_back(LayerType::kFullAttention);
    } else {
      return unsupported(what, fmt::format("\"layer_types\" has {}", to_text(entry)));
    }
  }
  return types;
}

Result<void> parse_yarn(const Json& json, const std::string& what, int64_t positions_max,
                        RopeConfig& rope) {
  rope.yarn = true;
  rope.factor = PENSTOCK_TRY(number_in(json, "factor", what, 0, 65536));
  if (rope.factor < 1) return corrupt(what, "\"factor\" must be at least 1");
  rope.original_max_position_embeddings = positions_max;
  if (json_find(json, "original_max_position_embeddings") != nullptr) {
    rope.original_max_position_embeddings =
        PENSTOCK_TRY(json_int(json, "original_max_position_embeddings", what, 1, kPositionsMax));
  }
  rope.beta_fast = PENSTOCK_TRY(number_or(json, "beta_fast", what, 32, 1e6));
  rope.beta_slow = PENSTOCK_TRY(number_or(json, "beta_slow", what, 1, 1e6));
  rope.attention_factor = PENSTOCK_TRY(number_or(json, "attention_factor", what, 0, 1e6));
  rope.truncate = PENSTOCK_TRY(bool_or(json, "truncate", what, true));
  if (json_find(json, "mscale") != nullptr || json_find(json, "mscale_all_dim") != nullptr) {
    return unsupported(what, "\"mscale\" is not supported");
  }
  return {};
}

// Newer files have all of it in rope_parameters; older ones beside the other fields, with the kind
// of scaling in rope_scaling.
Result<RopeConfig> parse_rope(const Json& json, const std::string& what, int64_t positions_max) {
  const Json* parameters = json_find(json, "rope_parameters");
  const Json* scaling = parameters != nullptr ? parameters : json_find(json, "rope_scaling");
  if (scaling != nullptr && !scaling->is_object()) {
    return corrupt(what, "\"rope_parameters\" or \"rope_scaling\" is not an object");
  }
  const std::string place =
      what + (parameters != nullptr ? ": \"rope_parameters\"" : ": \"rope_scaling\"");
  const auto holder = [&](std::string_view key) -> const Json& {
    return scaling != nullptr && json_find(*scaling, key) != nullptr ? *scaling : json;
  };
  RopeConfig rope;
  rope.theta = PENSTOCK_TRY(number_in(holder("rope_theta"), "rope_theta", what, 0, 1e30));
  const Json& rotary = holder("partial_rotary_factor");
  rope.partial_rotary_factor =
      PENSTOCK_TRY(number_or(rotary, "partial_rotary_factor", what, 0.25, 1));
  if (scaling == nullptr) return rope;

  const std::string_view type_key =
      json_find(*scaling, "rope_type") != nullptr ? "rope_type" : "type";
  std::string type = "default";
  if (json_find(*scaling, type_key) != nullptr) {
    type = PENSTOCK_TRY(json_string(*scaling, type_key, place));
  }
  if (type == "yarn") {
    PENSTOCK_TRY(parse_yarn(*scaling, place, positions_max, rope));
  } else if (type != "default" && type != "mrope") {
    return unsupported(place, fmt::format("rope type {} is not supported; supported are default "
                                          "and yarn",
                                          to_text(Json(type))));
  }
  return rope;
}

Result<void> check_geometry(const ModelConfig& config, const std::string& what) {
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return corrupt(what, "\"num_attention_heads\" is not a multiple of \"num_key_value_heads\"");
  }
  if (config.linear_num_value_heads % config.linear_num_key_heads != 0) {
    return corrupt(what,
                   "\"linear_num_value_heads\" is not a multiple of \"linear_num_key_heads\"");
  }
  const int64_t rotary = config.rotary_dim();
  if (rotary < 2 || rotary % 2 != 0 || rotary > config.head_dim) {
    return corrupt(what, fmt::format("\"partial_rotary_factor\" {} of \"head_dim\" {} rotates {} "
                                     "components; it must be an even number of at least 2",
                                     config.rope.partial_rotary_factor, config.head_dim, rotary));
  }
  if (config.num_experts_per_tok > config.num_experts) {
    return corrupt(what, fmt::format("\"num_experts_per_tok\" {} exceeds \"num_experts\" {}",
                                     config.num_experts_per_tok, config.num_experts));
  }
  return {};
}

}  // namespace

Result<ModelConfig> parse_model_config(const Json& config, const std::string& what) {
  if (!config.is_object()) return corrupt(what, "is not an object");
  const Json* nested = json_find(config, "text_config");
  if (nested != nullptr && !nested->is_object())
    return corrupt(what, "\"text_config\" is no object");
  const Json& json = nested != nullptr ? *nested : config;
  const std::string place = nested != nullptr ? what + ": \"text_config\"" : what;
  const auto integer = [&](std::string_view key, int64_t minimum, int64_t maximum) {
    return json_int(json, key, place, minimum, maximum);
  };

  ModelConfig result;
  result.model_type = PENSTOCK_TRY(parse_model_type(config, json, place));
  PENSTOCK_TRY(check_switches(json, place));
  result.vocab_size = PENSTOCK_TRY(integer("vocab_size", 1, kVocabMax));
  result.hidden_size = PENSTOCK_TRY(integer("hidden_size", 1, kWidthMax));
  result.num_hidden_layers = PENSTOCK_TRY(integer("num_hidden_layers", 1, 1024));
  result.layer_types = PENSTOCK_TRY(parse_layer_types(json, place, result.num_hidden_layers));
  result.num_attention_heads = PENSTOCK_TRY(integer("num_attention_heads", 1, kHeadsMax));
  result.num_key_value_heads = PENSTOCK_TRY(integer("num_key_value_heads", 1, kHeadsMax));
  result.head_dim = PENSTOCK_TRY(integer("head_dim", 1, kHeadWidthMax));
  result.attention_bias = PENSTOCK_TRY(bool_or(json, "attention_bias", place, false));
  result.linear_num_key_heads = PENSTOCK_TRY(integer("linear_num_key_heads", 1, kHeadsMax));
  result.linear_num_value_heads = PENSTOCK_TRY(integer("linear_num_value_heads", 1, kHeadsMax));
  result.linear_key_head_dim = PENSTOCK_TRY(integer("linear_key_head_dim", 1, kHeadWidthMax));
  result.linear_value_head_dim = PENSTOCK_TRY(integer("linear_value_head_dim", 1, kHeadWidthMax));
  result.linear_conv_kernel_dim = PENSTOCK_TRY(integer("linear_conv_kernel_dim", 1, 16));
  result.num_experts = PENSTOCK_TRY(integer("num_experts", 1, 65536));
  result.num_experts_per_tok = PENSTOCK_TRY(integer("num_experts_per_tok", 1, 65536));
  result.moe_intermediate_size = PENSTOCK_TRY(integer("moe_intermediate_size", 1, kWidthMax));
  result.shared_expert_intermediate_size =
      PENSTOCK_TRY(integer("shared_expert_intermediate_size", 1, kWidthMax));
  result.rms_norm_eps = PENSTOCK_TRY(number_in(json, "rms_norm_eps", place, 0, 1));
  result.max_position_embeddings =
      PENSTOCK_TRY(integer("max_position_embeddings", 1, kPositionsMax));
  const bool tied_outside = PENSTOCK_TRY(bool_or(config, "tie_word_embeddings", what, false));
  result.tie_word_embeddings =
      PENSTOCK_TRY(bool_or(json, "tie_word_embeddings", place, tied_outside));
  if (json_find(json, "mtp_num_hidden_layers") != nullptr) {
    result.mtp_num_hidden_layers = PENSTOCK_TRY(integer("mtp_num_hidden_layers", 0, 1));
  }
  result.rope = PENSTOCK_TRY(parse_rope(json, place, result.max_position_embeddings));
  PENSTOCK_TRY(check_geometry(result, place));
  return result;
}

}  // namespace penstock
