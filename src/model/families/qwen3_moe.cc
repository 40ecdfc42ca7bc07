// qwen3_moe (Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder): configuration, tensors, graph.
//
// A pre-norm decoder with plain grouped-query attention, whose queries and keys are normed, and a
// mixture of experts without a shared one. Layers may be dense instead.
//
// Source  docs/model.md; config.json of the published models
#include <fmt/format.h>

#include "model/blocks.h"
#include "model/config_sections.h"
#include "model/families/families.h"
#include "model/moe.h"
#include "model/op_shapes.h"
#include "model/tensor_lister.h"

namespace penstock {
namespace {

Result<ModelConfig> read_qwen3(ConfigReader& config, std::string_view model_type) {
  ModelConfig result;
  result.model_type = model_type;
  PENSTOCK_TRY(read_decoder(config, result));
  PENSTOCK_TRY(read_experts(config, result));
  PENSTOCK_TRY(read_rope(config, 1.0, result));
  result.norm_topk_prob = PENSTOCK_TRY(config.flag_or("norm_topk_prob", false));
  result.layer_types.assign(static_cast<size_t>(result.num_hidden_layers),
                            LayerType::kFullAttention);
  result.ffn_types = PENSTOCK_TRY(read_ffn_types(config, result.num_hidden_layers));
  if (result.num_expert_layers() == 0) return config.unsupported("no layer has experts");
  if (result.num_expert_layers() < result.num_hidden_layers) {
    result.intermediate_size = PENSTOCK_TRY(config.integer("intermediate_size", 1, kWidthMax));
  }
  // Attention over all positions, queries and keys normed, nothing beside the routed experts.
  PENSTOCK_TRY(config.require_flag("use_sliding_window", false));
  PENSTOCK_TRY(config.require_flag("use_qk_norm", true));
  PENSTOCK_TRY(config.require_flag("qkv_bias", false));
  if (PENSTOCK_TRY(config.integer_or("shared_expert_intermediate_size", 0, 0, kWidthMax)) != 0) {
    return config.unsupported("\"shared_expert_intermediate_size\" must be 0");
  }
  config.ignore({"intermediate_size", "sliding_window", "max_window_layers", "layer_types"});
  return result;
}

Json write_qwen3(const ModelConfig& config) {
  Json json = write_decoder(config);
  json.erase("layer_types");  // all alike
  write_experts(config, json);
  json["norm_topk_prob"] = config.norm_topk_prob;
  Json dense = Json::array();
  for (size_t layer = 0; layer < config.ffn_types.size(); ++layer) {
    if (config.ffn_types[layer] == FfnType::kDense) dense.push_back(layer);
  }
  if (!dense.empty()) json["intermediate_size"] = config.intermediate_size;
  json["mlp_only_layers"] = std::move(dense);
  write_rest(config, json);
  return json;
}

TensorList list_qwen3(const ModelConfig& config, std::string_view prefix) {
  TensorLister out(prefix);
  out.embedding(config);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    out.at_layer(layer);
    out.norm(ModelPart::kNorms, "input_layernorm", config.hidden_size, Change::kNone);
    out.attention(config, Change::kNone);
    out.norm(ModelPart::kNorms, "post_attention_layernorm", config.hidden_size, Change::kNone);
    if (config.ffn_types[static_cast<size_t>(layer)] == FfnType::kExperts) {
      out.router(config);
      out.experts(config);
    } else {
      out.ffn(ModelPart::kDenseFfn, "mlp.", config.hidden_size, config.intermediate_size);
    }
  }
  out.head(config, Change::kNone);
  return out.take();
}

class Qwen3Moe final : public Model {
 public:
  static Result<std::unique_ptr<Model>> bind(const ModelConfig& config, WeightBinder& weights,
                                             RopeTable rope) {
    auto model = std::make_unique<Qwen3Moe>();
    model->config_ = config;
    model->attention_shape_ = attention_shape(config);
    model->rope_ = rope;
    model->embed_tokens_ = PENSTOCK_TRY(weights.matrix("embed_tokens"));
    model->head_ = PENSTOCK_TRY(bind_head(weights, config, model->embed_tokens_));
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      model->layers_.push_back(
          PENSTOCK_TRY(bind_layer(config, config.ffn_types[static_cast<size_t>(layer)],
                                  fmt::format("layers.{}.", layer), weights)));
    }
    return std::unique_ptr<Model>(std::move(model));
  }

  const ModelConfig& config() const override { return config_; }

  Result<void> forward(Step& step, std::span<const int32_t> tokens,
                       std::span<const Segment> segments,
                       const LogitsObserver& on_logits) const override {
    Backend& ops = step.backend;
    const auto n = static_cast<int64_t>(tokens.size());
    PENSTOCK_CHECK(n >= 1 && n <= step.scratch.shape().chunk_tokens);
    const ScratchRows& rows = step.scratch.rows();
    const Rows x = rows.x.first(n), h = rows.h.first(n), y = rows.y.first(n);
    const auto eps = static_cast<float>(config_.rms_norm_eps);
    int64_t expert_layer = 0;

    ops.embed(embed_tokens_, tokens, x);
    for (int64_t index = 0; index < config_.num_hidden_layers; ++index) {
      const Layer& layer = layers_[static_cast<size_t>(index)];
      if (step.between_layers) step.between_layers();
      {
        const PartTimer timer(step.times.mixer_ns);
        ops.rms_norm(x, layer.input_norm, eps, h);
        attention_block(step, layer.attention, attention_shape_, rope_, index, segments, n);
        ops.add(x, y, x);
        ops.rms_norm(x, layer.post_attention_norm, eps, h);
      }
      if (layer.ffn == FfnType::kDense) {
        const PartTimer timer(step.times.shared_ns);
        ops.dense_ffn(h, layer.gate_proj, layer.up_proj, layer.down_proj, y);
      } else {
        PENSTOCK_TRY(moe_block(step, expert_layer++, layer.moe, router_after(index), n));
      }
      ops.add(x, y, x);
    }
    return head_block(step, head_, segments, on_logits);
  }

  Result<Rows> draft(Step&, int32_t, SequenceState&) const override {
    PENSTOCK_CHECK(false);  // states of a model without a prediction block do not draft
    return Rows{};
  }

 private:
  struct Layer {
    FfnType ffn = FfnType::kExperts;
    std::span<const float> input_norm, post_attention_norm;
    AttentionLayer attention;
    MoeWeights moe;  // of its kind only
    Matrix gate_proj, up_proj, down_proj;
  };

  static Result<Layer> bind_layer(const ModelConfig& config, FfnType ffn, const std::string& prefix,
                                  WeightBinder& weights) {
    Layer layer;
    layer.ffn = ffn;
    layer.input_norm = PENSTOCK_TRY(weights.vector(prefix + "input_layernorm"));
    layer.post_attention_norm = PENSTOCK_TRY(weights.vector(prefix + "post_attention_layernorm"));
    layer.attention = PENSTOCK_TRY(bind_attention(weights, prefix + "self_attn."));
    if (ffn == FfnType::kExperts) {
      layer.moe.router = PENSTOCK_TRY(weights.matrix(prefix + "mlp.gate"));
      layer.moe.renormalise = config.norm_topk_prob;
    } else {
      layer.gate_proj = PENSTOCK_TRY(weights.matrix(prefix + "mlp.gate_proj"));
      layer.up_proj = PENSTOCK_TRY(weights.matrix(prefix + "mlp.up_proj"));
      layer.down_proj = PENSTOCK_TRY(weights.matrix(prefix + "mlp.down_proj"));
    }
    return layer;
  }

  // The router of the next layer that has one, dense layers passed over: the guess is the worse for
  // them, and one look further ahead.
  const Matrix* router_after(int64_t index) const {
    for (size_t next = static_cast<size_t>(index) + 1; next < layers_.size(); ++next) {
      if (layers_[next].ffn == FfnType::kExperts) return &layers_[next].moe.router;
    }
    return nullptr;
  }

  ModelConfig config_;
  AttentionShape attention_shape_;
  RopeTable rope_{};
  Matrix embed_tokens_;
  HeadWeights head_;
  std::vector<Layer> layers_;
};

constexpr std::string_view kQwen3Types[] = {"qwen3_moe"};
constexpr std::string_view kQwen3Prefixes[] = {"model."};

}  // namespace

const Family& qwen3_moe_family() {
  static constexpr Family kFamily{.name = "qwen3_moe",
                                  .model_types = kQwen3Types,
                                  .text_prefixes = kQwen3Prefixes,
                                  .read_config = read_qwen3,
                                  .write_config = write_qwen3,
                                  .list_tensors = list_qwen3,
                                  .bind = Qwen3Moe::bind};
  return kFamily;
}

}  // namespace penstock
