// qwen3_5_moe and qwen3_next: their config.json and their tensors.
//
// qwen3_5_moe comes nested under text_config or flat. qwen3_next is flat, may derive its layer
// types from full_attention_interval, and stores the inputs of its delta-nets as two matrices whose
// rows are grouped by key head; taken apart, both are one architecture.
//
// Source  docs/model.md, Configuration and Tensors
#include <fmt/format.h>

#include <cmath>

#include "model/config_sections.h"
#include "model/families/families.h"
#include "model/families/qwen3_5_moe.h"
#include "model/tensor_lister.h"

namespace penstock {
namespace {

constexpr double kRotaryPart = 0.25;  // of a head, where the file does not say
constexpr std::string_view kText = "qwen3_5_moe_text";
constexpr std::string_view kNext = "qwen3_next";

Result<std::vector<LayerType>> layer_types_of(ConfigReader& config, int64_t num_layers) {
  const bool has_list = config.has("layer_types");
  if (!has_list && !config.has("full_attention_interval")) {
    return config.missing("neither \"layer_types\" nor \"full_attention_interval\"");
  }
  const int64_t interval = PENSTOCK_TRY(config.integer_or("full_attention_interval", 4, 1, 1024));
  if (!has_list) return every_nth_full(num_layers, interval);
  return read_layer_types(config, num_layers);
}

// Switches whose other position would be another architecture.
Result<void> check_switches(ConfigReader& config, int64_t num_layers) {
  PENSTOCK_TRY(config.require_word("output_gate_type", {"swish", "silu"}));
  PENSTOCK_TRY(config.require_word("mamba_ssm_dtype", {"float32"}));
  PENSTOCK_TRY(config.require_flag("attn_output_gate", true));
  PENSTOCK_TRY(config.require_flag("norm_topk_prob", true));
  PENSTOCK_TRY(config.require_flag("mtp_use_dedicated_embeddings", false));
  PENSTOCK_TRY(config.require_flag("use_sliding_window", false));
  for (const FfnType type : PENSTOCK_TRY(read_ffn_types(config, num_layers))) {
    if (type == FfnType::kExperts) continue;
    return config.unsupported(
        "\"decoder_sparse_step\" must be 1 and \"mlp_only_layers\" empty: every layer has experts");
  }
  config.ignore({"intermediate_size"});  // of dense layers, which there are none of
  return {};
}

Result<ModelConfig> read_qwen3_5(ConfigReader& config, std::string_view model_type) {
  ModelConfig result;
  result.model_type = model_type == kNext ? kNext : kText;
  PENSTOCK_TRY(read_decoder(config, result));
  PENSTOCK_TRY(check_switches(config, result.num_hidden_layers));
  result.layer_types = PENSTOCK_TRY(layer_types_of(config, result.num_hidden_layers));
  result.ffn_types.assign(static_cast<size_t>(result.num_hidden_layers), FfnType::kExperts);
  result.attn_output_gate = true;
  result.linear_num_key_heads = PENSTOCK_TRY(config.integer("linear_num_key_heads", 1, kHeadsMax));
  result.linear_num_value_heads =
      PENSTOCK_TRY(config.integer("linear_num_value_heads", 1, kHeadsMax));
  result.linear_key_head_dim =
      PENSTOCK_TRY(config.integer("linear_key_head_dim", 1, kHeadWidthMax));
  result.linear_value_head_dim =
      PENSTOCK_TRY(config.integer("linear_value_head_dim", 1, kHeadWidthMax));
  result.linear_conv_kernel_dim = PENSTOCK_TRY(config.integer("linear_conv_kernel_dim", 1, 16));
  if (result.linear_num_value_heads % result.linear_num_key_heads != 0) {
    return config.corrupt(
        "\"linear_num_value_heads\" is not a multiple of \"linear_num_key_heads\"");
  }
  PENSTOCK_TRY(read_experts(config, result));
  result.shared_expert_intermediate_size =
      PENSTOCK_TRY(config.integer("shared_expert_intermediate_size", 1, kWidthMax));
  result.mtp_num_hidden_layers = PENSTOCK_TRY(config.integer_or("mtp_num_hidden_layers", 0, 0, 1));
  PENSTOCK_TRY(read_rope(config, kRotaryPart, result));
  return result;
}

Json write_qwen3_5(const ModelConfig& config) {
  Json json = write_decoder(config);
  json["linear_num_key_heads"] = config.linear_num_key_heads;
  json["linear_num_value_heads"] = config.linear_num_value_heads;
  json["linear_key_head_dim"] = config.linear_key_head_dim;
  json["linear_value_head_dim"] = config.linear_value_head_dim;
  json["linear_conv_kernel_dim"] = config.linear_conv_kernel_dim;
  write_experts(config, json);
  json["shared_expert_intermediate_size"] = config.shared_expert_intermediate_size;
  write_rest(config, json);
  if (config.mtp_num_hidden_layers > 0) {
    json["mtp_num_hidden_layers"] = config.mtp_num_hidden_layers;
  }
  return json;
}

// Rows [first, first + rows) of the block of every key head.
SourceForm by_key_head(const ModelConfig& config, const std::string& marker,
                       const std::string& tensor, int64_t block,
                       std::initializer_list<std::pair<int64_t, int64_t>> parts) {
  const int64_t heads = config.linear_num_key_heads;
  SourceForm form{marker, {}};
  for (const auto& [first, rows] : parts) {
    for (int64_t head = 0; head < heads; ++head) {
      form.ranges.push_back(
          {tensor, {heads * block, config.hidden_size}, head * block + first, rows, 0});
    }
  }
  return form;
}

// Four matrices, or two whose rows are grouped by key head: in_proj_qkvz has of key head j
// q | k | its values | its gates, in_proj_ba has b | a.
void list_delta_inputs(TensorLister& out, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t heads = config.linear_num_value_heads;
  const int64_t key = config.linear_key_head_dim;
  const int64_t per_key = heads / config.linear_num_key_heads;
  const int64_t value = per_key * config.linear_value_head_dim;
  const std::string qkvz = out.source() + "linear_attn.in_proj_qkvz.weight";
  const std::string ba = out.source() + "linear_attn.in_proj_ba.weight";
  const auto grouped = [&](SourceForm form) {
    std::vector<SourceForm>& forms = out.list().resident.back().sources;
    forms.insert(forms.begin(), std::move(form));
  };
  const int64_t block = 2 * key + 2 * value;
  out.matrix(ModelPart::kDeltaNet, "linear_attn.in_proj_qkv", config.conv_channels(), hidden);
  grouped(by_key_head(config, qkvz, qkvz, block, {{0, key}, {key, key}, {2 * key, value}}));
  out.matrix(ModelPart::kDeltaNet, "linear_attn.in_proj_z", heads * config.linear_value_head_dim,
             hidden);
  grouped(by_key_head(config, qkvz, qkvz, block, {{2 * key + value, value}}));
  out.exact_matrix(ModelPart::kDeltaNet, "linear_attn.in_proj_b", heads, hidden);
  grouped(by_key_head(config, qkvz, ba, 2 * per_key, {{0, per_key}}));
  out.exact_matrix(ModelPart::kDeltaNet, "linear_attn.in_proj_a", heads, hidden);
  grouped(by_key_head(config, qkvz, ba, 2 * per_key, {{per_key, per_key}}));
}

void list_delta_net(TensorLister& out, const ModelConfig& config) {
  const int64_t heads = config.linear_num_value_heads;
  const int64_t taps = config.linear_conv_kernel_dim;
  const auto vector = [&](std::string_view name, std::string_view source, int64_t rows,
                          int64_t columns, std::vector<int64_t> shape) -> TensorSpec& {
    TensorSpec spec{.name = fmt::format("linear_attn.{}", name),
                    .rows = rows,
                    .columns = columns,
                    .part = ModelPart::kDeltaNet,
                    .stored = StoredAs::kVector};
    spec.sources = {
        whole_tensor(fmt::format("{}linear_attn.{}", out.source(), source), std::move(shape))};
    return out.add(std::move(spec));
  };
  list_delta_inputs(out, config);
  const int64_t channels = config.conv_channels();
  vector("conv1d", "conv1d.weight", channels, taps, {channels, 1, taps}).fill = {
      SyntheticFill::Kind::kRandom, 1 / std::sqrt(static_cast<double>(taps))};
  TensorSpec& decay = vector("decay", "A_log", 1, heads, {heads});
  decay.change = Change::kMinusExp;
  decay.fill = {SyntheticFill::Kind::kDecay, 0};
  vector("dt_bias", "dt_bias", 1, heads, {heads}).fill = {SyntheticFill::Kind::kConstant, 0};
  out.norm(ModelPart::kDeltaNet, "linear_attn.norm", config.linear_value_head_dim, Change::kNone);
  out.matrix(ModelPart::kDeltaNet, "linear_attn.out_proj", config.hidden_size,
             heads * config.linear_value_head_dim);
}

// At the place where `out` is.
void list_layer(TensorLister& out, const ModelConfig& config, LayerType type) {
  const int64_t hidden = config.hidden_size;
  out.norm(ModelPart::kNorms, "input_layernorm", hidden, Change::kAddOne);
  if (type == LayerType::kFullAttention) {
    out.attention(config, Change::kAddOne);
  } else {
    list_delta_net(out, config);
  }
  out.norm(ModelPart::kNorms, "post_attention_layernorm", hidden, Change::kAddOne);
  out.router(config);
  out.exact_matrix(ModelPart::kSharedGate, "mlp.shared_expert_gate", 1, hidden);
  out.ffn(ModelPart::kSharedExpert, "mlp.shared_expert.", hidden,
          config.shared_expert_intermediate_size);
  out.experts(config);
}

// One more attention layer behind a projection; some releases carry only pieces of it.
void list_prediction_block(TensorLister& out, const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  out.at_prediction_block();
  for (const char* norm : {"pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"}) {
    out.norm(ModelPart::kDraft, norm, hidden, Change::kAddOne);
  }
  out.matrix(ModelPart::kDraft, "fc", hidden, 2 * hidden);
  out.list().prediction_markers = {{"mtp.fc.weight", {hidden, 2 * hidden}, 0, hidden, 0},
                                   {"mtp.layers.0.self_attn.q_proj.weight", {}, 0, 0, 0}};
  out.at_prediction_layer();
  list_layer(out, config, LayerType::kFullAttention);
}

TensorList list_qwen3_5(const ModelConfig& config, std::string_view prefix) {
  TensorLister out(prefix);
  out.list().leftovers = {{"model.visual.", Leftover::Kind::kVision},
                          {"visual.", Leftover::Kind::kVision},
                          {"mtp.", Leftover::Kind::kPrediction}};
  out.embedding(config);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    out.at_layer(layer);
    list_layer(out, config, config.layer_types[static_cast<size_t>(layer)]);
  }
  out.head(config, Change::kAddOne);
  if (config.mtp_num_hidden_layers > 0) list_prediction_block(out, config);
  return out.take();
}

Result<std::unique_ptr<Model>> bind(const ModelConfig& config, WeightBinder& weights,
                                    RopeTable rope) {
  Qwen35Moe model = PENSTOCK_TRY(Qwen35Moe::bind(config, weights, rope));
  return std::unique_ptr<Model>(std::make_unique<Qwen35Moe>(std::move(model)));
}

constexpr std::string_view kQwen35Types[] = {kText, "qwen3_5_moe", kNext};
constexpr std::string_view kQwen35Prefixes[] = {"model.language_model.", "model."};

}  // namespace

const Family& qwen3_5_moe_family() {
  static constexpr Family kFamily{.name = "qwen3_5_moe and qwen3_next",
                                  .model_types = kQwen35Types,
                                  .text_prefixes = kQwen35Prefixes,
                                  .read_config = read_qwen3_5,
                                  .write_config = write_qwen3_5,
                                  .list_tensors = list_qwen3_5,
                                  .bind = bind};
  return kFamily;
}

}  // namespace penstock
