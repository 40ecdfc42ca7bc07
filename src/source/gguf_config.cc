#include "source/gguf_config.h"

#include <fmt/format.h>

#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "format/text.h"

namespace penstock {
namespace {

constexpr int64_t kCountMax = INT32_MAX;  // the config's own ranges are narrower
constexpr int64_t kBlocksMax = 4096;

// The shortest decimal of a float: 1e-6 was written as a float, and is meant as 1e-6.
double as_written(double value) {
  return std::strtod(fmt::format("{}", static_cast<float>(value)).c_str(), nullptr);
}

// Keys of a config.json and what a GGUF file calls them.
struct KeyNames {
  std::string_view config, gguf;
};
constexpr KeyNames kIntegers[] = {{"hidden_size", "embedding_length"},
                                  {"num_experts", "expert_count"},
                                  {"num_experts_per_tok", "expert_used_count"},
                                  {"moe_intermediate_size", "expert_feed_forward_length"},
                                  {"max_position_embeddings", "context_length"}};
constexpr KeyNames kIntegersBesideDeltaNet[] = {
    {"linear_num_key_heads", "ssm.group_count"},
    {"linear_key_head_dim", "ssm.state_size"},
    {"linear_conv_kernel_dim", "ssm.conv_kernel"},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length"}};
constexpr KeyNames kDerived[] = {
    {"num_hidden_layers", "block_count"},
    {"head_dim", "attention.key_length"},
    {"num_attention_heads", "attention.head_count"},
    {"num_key_value_heads", "attention.head_count_kv"},
    {"linear_num_value_heads", "ssm.time_step_rank"},
    {"linear_value_head_dim", "ssm.inner_size"},
    {"layer_types", "full_attention_interval"},
    {"intermediate_size", "feed_forward_length"},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
    {"rope_theta", "rope.freq_base"},
    {"partial_rotary_factor", "rope.dimension_count"},
    {"factor", "rope.scaling.factor"},
    {"original_max_position_embeddings", "rope.scaling.original_context_length"}};

// What parse_model_config() says of a config.json, in the words of the file that it was made from.
std::string in_keys_of_gguf(std::string message, const std::string& architecture) {
  for (const std::span<const KeyNames> names :
       {std::span<const KeyNames>(kIntegers), std::span<const KeyNames>(kIntegersBesideDeltaNet),
        std::span<const KeyNames>(kDerived)}) {
    for (const auto& [config, gguf] : names) {
      const std::string quoted = fmt::format("\"{}\"", config);
      for (size_t at = 0; (at = message.find(quoted, at)) != std::string::npos;) {
        message.replace(at, quoted.size(), fmt::format("{}.{}", architecture, gguf));
      }
    }
  }
  return message;
}

class GgufConfigReader {
 public:
  GgufConfigReader(const GgufModel& model, std::string architecture)
      : keys_(model.metadata()), model_(model), architecture_(std::move(architecture)) {}

  Result<Json> read();

 private:
  Error error(ErrorCode code, const std::string& reason) const {
    return {code, fmt::format("{}: {}", model_.path(), reason)};
  }
  std::string key(std::string_view name) const { return architecture_ + "." + std::string(name); }
  bool has(std::string_view name) const { return keys_.has(key(name)); }
  Result<int64_t> integer(std::string_view name) const {
    return keys_.integer(key(name), 0, kCountMax);
  }
  Result<int64_t> integer_or(std::string_view name, int64_t otherwise) const {
    return has(name) ? integer(name) : Result<int64_t>(otherwise);
  }
  Result<double> number(std::string_view name) const {
    return as_written(PENSTOCK_TRY(keys_.number(key(name))));
  }
  Result<void> read_integers(std::span<const KeyNames> names, Json& json) const;
  Result<int64_t> heads(std::string_view name) const;
  Result<Json> layer_types(int64_t layers) const;
  Result<void> read_delta_net(Json& json) const;
  Result<void> read_dense_layers(int64_t layers, Json& json) const;
  Result<Json> rope(int64_t head_dim) const;

  const GgufMetadata& keys_;
  const GgufModel& model_;
  std::string architecture_;
};

Result<void> GgufConfigReader::read_integers(std::span<const KeyNames> names, Json& json) const {
  for (const auto& [config, gguf] : names) json[config] = PENSTOCK_TRY(integer(gguf));
  return {};
}

// A number, or one per block: then those of blocks without attention are 0.
Result<int64_t> GgufConfigReader::heads(std::string_view name) const {
  const GgufValue* value = keys_.find(key(name));
  if (value == nullptr || !value->is_list) return integer(name);
  int64_t found = 0;
  for (const int64_t count : PENSTOCK_TRY(keys_.integers(key(name)))) {
    if (count == 0 || count == found) continue;
    if (found != 0) {
      return error(ErrorCode::kUnsupported,
                   fmt::format("key {} differs from layer to layer", key(name)));
    }
    found = count;
  }
  return found;
}

Result<Json> GgufConfigReader::layer_types(int64_t layers) const {
  constexpr int64_t kIntervalOfOldFiles = 4;
  std::vector<int64_t> recurrent;
  if (has("attention.recurrent_layers")) {
    recurrent = PENSTOCK_TRY(keys_.integers(key("attention.recurrent_layers")));
    if (static_cast<int64_t>(recurrent.size()) < layers) {
      return error(ErrorCode::kCorrupt,
                   fmt::format("key {} has {} entries for {} layers",
                               key("attention.recurrent_layers"), recurrent.size(), layers));
    }
  } else {
    const int64_t interval =
        PENSTOCK_TRY(integer_or("full_attention_interval", kIntervalOfOldFiles));
    if (interval < 1) return error(ErrorCode::kCorrupt, key("full_attention_interval") + " is 0");
    for (int64_t layer = 0; layer < layers; ++layer) {
      recurrent.push_back((layer + 1) % interval != 0 ? 1 : 0);
    }
  }
  Json types = Json::array();
  for (int64_t layer = 0; layer < layers; ++layer) {
    types.push_back(recurrent[static_cast<size_t>(layer)] != 0 ? "linear_attention"
                                                               : "full_attention");
  }
  return types;
}

Result<void> GgufConfigReader::read_delta_net(Json& json) const {
  const int64_t value_heads = PENSTOCK_TRY(integer("ssm.time_step_rank"));
  const int64_t width = PENSTOCK_TRY(integer("ssm.inner_size"));
  if (value_heads < 1 || width % value_heads != 0) {
    return error(ErrorCode::kCorrupt,
                 fmt::format("key {} is {}, no multiple of {}, which is {}", key("ssm.inner_size"),
                             width, key("ssm.time_step_rank"), value_heads));
  }
  json["linear_num_value_heads"] = value_heads;
  json["linear_value_head_dim"] = width / value_heads;
  return read_integers(kIntegersBesideDeltaNet, json);
}

// Layers without a router are dense.
Result<void> GgufConfigReader::read_dense_layers(int64_t layers, Json& json) const {
  Json dense = Json::array();
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string router = fmt::format("blk.{}.ffn_gate_inp.weight", layer);
    if (model_.find(router) == nullptr) dense.push_back(layer);
  }
  if (!dense.empty()) json["intermediate_size"] = PENSTOCK_TRY(integer("feed_forward_length"));
  json["mlp_only_layers"] = std::move(dense);
  return {};
}

Result<Json> GgufConfigReader::rope(int64_t head_dim) const {
  Json json = {{"rope_type", "default"}};
  json["rope_theta"] = PENSTOCK_TRY(number("rope.freq_base"));
  const int64_t rotary = PENSTOCK_TRY(integer_or("rope.dimension_count", head_dim));
  json["partial_rotary_factor"] = static_cast<double>(rotary) / static_cast<double>(head_dim);
  if (!has("rope.scaling.type")) return json;
  const std::string type = PENSTOCK_TRY(keys_.string(key("rope.scaling.type")));
  if (type == "none") return json;
  json["rope_type"] = type;  // anything but yarn is refused with the config
  json["factor"] = PENSTOCK_TRY(number("rope.scaling.factor"));
  if (has("rope.scaling.original_context_length")) {
    json["original_max_position_embeddings"] =
        PENSTOCK_TRY(integer("rope.scaling.original_context_length"));
  }
  return json;
}

Result<Json> GgufConfigReader::read() {
  const GgufTensor* embedding = model_.find("token_embd.weight");
  if (embedding == nullptr) {
    return error(ErrorCode::kNotFound, "tensor token_embd.weight is missing");
  }
  const int64_t blocks = PENSTOCK_TRY(keys_.integer(key("block_count"), 1, kBlocksMax));
  const int64_t predicting = PENSTOCK_TRY(integer_or("nextn_predict_layers", 0));
  if (predicting > 1 || predicting >= blocks) {
    return error(ErrorCode::kUnsupported,
                 fmt::format("key {} is {} of {} blocks; at most 1 is read",
                             key("nextn_predict_layers"), predicting, blocks));
  }
  const int64_t layers = blocks - predicting;
  const int64_t head_dim = PENSTOCK_TRY(keys_.integer(key("attention.key_length"), 1, 1 << 16));
  if (PENSTOCK_TRY(integer("attention.value_length")) != head_dim) {
    return error(ErrorCode::kUnsupported,
                 fmt::format("keys {} and {} differ", key("attention.key_length"),
                             key("attention.value_length")));
  }
  const bool is_plain = architecture_ == "qwen3moe";  // attention only, no shared expert
  Json json = {{"model_type", is_plain                       ? "qwen3_moe"
                              : architecture_ == "qwen3next" ? "qwen3_next"
                                                             : "qwen3_5_moe_text"},
               {"vocab_size", embedding->rows()},
               {"num_hidden_layers", layers},
               {"head_dim", head_dim}};
  PENSTOCK_TRY(read_integers(kIntegers, json));
  json["num_attention_heads"] = PENSTOCK_TRY(heads("attention.head_count"));
  json["num_key_value_heads"] = PENSTOCK_TRY(heads("attention.head_count_kv"));
  bool has_bias = false;
  for (int64_t layer = 0; layer < layers; ++layer) {
    has_bias = has_bias || model_.find(fmt::format("blk.{}.attn_q.bias", layer)) != nullptr;
  }
  json["attention_bias"] = has_bias;
  if (is_plain) {
    PENSTOCK_TRY(read_dense_layers(layers, json));
    json["norm_topk_prob"] = true;  // the programs that run these files know nothing else
  } else {
    json["layer_types"] = PENSTOCK_TRY(layer_types(layers));
    PENSTOCK_TRY(read_delta_net(json));
  }
  json["rms_norm_eps"] = PENSTOCK_TRY(number("attention.layer_norm_rms_epsilon"));
  json["tie_word_embeddings"] = model_.find("output.weight") == nullptr;
  json["rope_parameters"] = PENSTOCK_TRY(rope(head_dim));
  json["mtp_num_hidden_layers"] = predicting;
  return json;
}

}  // namespace

Result<ModelConfig> gguf_config(const GgufModel& model) {
  const std::string architecture = PENSTOCK_TRY(model.metadata().string("general.architecture"));
  if (architecture != "qwen35moe" && architecture != "qwen3next" && architecture != "qwen3moe") {
    return Error{
        ErrorCode::kUnsupported,
        fmt::format("{}: general.architecture {} is not supported; supported are qwen35moe, "
                    "qwen3next and qwen3moe",
                    model.path(), escaped(architecture))};
  }
  const Json json = PENSTOCK_TRY(GgufConfigReader(model, architecture).read());
  Result<ModelConfig> config = parse_model_config(json, model.path());
  if (config) return config;
  return Error{config.error().code, in_keys_of_gguf(config.error().message, architecture)};
}

}  // namespace penstock
