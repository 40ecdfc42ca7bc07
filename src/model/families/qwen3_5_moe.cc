#include "model/families/qwen3_5_moe.h"

#include <fmt/format.h>

#include "model/op_shapes.h"

namespace penstock {
Result<Qwen35Moe> Qwen35Moe::bind(const ModelConfig& config, WeightBinder& weights,
                                  RopeTable rope) {
  Qwen35Moe model;
  model.config_ = config;
  model.attention_shape_ = attention_shape(config);
  model.delta_net_shape_ = delta_net_shape(config);
  model.rope_ = rope;
  model.embed_tokens_ = PENSTOCK_TRY(weights.matrix("embed_tokens"));
  model.head_ = PENSTOCK_TRY(bind_head(weights, config, model.embed_tokens_));
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    model.layers_.push_back(
        PENSTOCK_TRY(bind_layer(fmt::format("layers.{}.", layer),
                                config.layer_types[static_cast<size_t>(layer)], weights)));
  }
  if (config.mtp_num_hidden_layers > 0) {
    model.prediction_ = PENSTOCK_TRY(bind_prediction(weights));
  }
  return model;
}

Result<Qwen35Moe::Layer> Qwen35Moe::bind_layer(const std::string& prefix, LayerType type,
                                               WeightBinder& weights) {
  Layer layer;
  layer.type = type;
  layer.input_norm = PENSTOCK_TRY(weights.vector(prefix + "input_layernorm"));
  layer.post_attention_norm = PENSTOCK_TRY(weights.vector(prefix + "post_attention_layernorm"));
  if (type == LayerType::kFullAttention) {
    layer.attention = PENSTOCK_TRY(bind_attention(weights, prefix + "self_attn."));
  } else {
    layer.delta_net = PENSTOCK_TRY(bind_delta_net(prefix + "linear_attn.", weights));
  }
  const std::string mlp = prefix + "mlp.";
  layer.moe.router = PENSTOCK_TRY(weights.matrix(mlp + "gate"));
  layer.moe.has_shared = true;
  layer.moe.shared_gate = PENSTOCK_TRY(weights.matrix(mlp + "shared_expert_gate"));
  layer.moe.shared_gate_proj = PENSTOCK_TRY(weights.matrix(mlp + "shared_expert.gate_proj"));
  layer.moe.shared_up_proj = PENSTOCK_TRY(weights.matrix(mlp + "shared_expert.up_proj"));
  layer.moe.shared_down_proj = PENSTOCK_TRY(weights.matrix(mlp + "shared_expert.down_proj"));
  return layer;
}

Result<Qwen35Moe::DeltaNetLayer> Qwen35Moe::bind_delta_net(const std::string& prefix,
                                                           WeightBinder& weights) {
  DeltaNetLayer layer;
  layer.in_proj_qkv = PENSTOCK_TRY(weights.matrix(prefix + "in_proj_qkv"));
  layer.in_proj_z = PENSTOCK_TRY(weights.matrix(prefix + "in_proj_z"));
  layer.in_proj_b = PENSTOCK_TRY(weights.matrix(prefix + "in_proj_b"));
  layer.in_proj_a = PENSTOCK_TRY(weights.matrix(prefix + "in_proj_a"));
  layer.out_proj = PENSTOCK_TRY(weights.matrix(prefix + "out_proj"));
  layer.weights.conv = PENSTOCK_TRY(weights.vector(prefix + "conv1d")).data();
  layer.weights.decay = PENSTOCK_TRY(weights.vector(prefix + "decay")).data();
  layer.weights.dt_bias = PENSTOCK_TRY(weights.vector(prefix + "dt_bias")).data();
  layer.weights.norm = PENSTOCK_TRY(weights.vector(prefix + "norm")).data();
  return layer;
}

Result<void> Qwen35Moe::forward(Step& step, std::span<const int32_t> tokens,
                                std::span<const Segment> segments,
                                const LogitsObserver& on_logits) const {
  Backend& ops = step.backend;
  const auto n = static_cast<int64_t>(tokens.size());
  PENSTOCK_CHECK(n >= 1 && n <= step.scratch.shape().chunk_tokens);
  const ScratchRows& rows = step.scratch.rows();
  const Rows x = rows.x.first(n), h = rows.h.first(n), y = rows.y.first(n);
  const auto eps = static_cast<float>(config_.rms_norm_eps);

  ops.embed(embed_tokens_, tokens, x);
  for (int64_t index = 0; index < config_.num_hidden_layers; ++index) {
    const Layer& layer = layers_[static_cast<size_t>(index)];
    if (step.between_layers) step.between_layers();
    {
      const PartTimer timer(step.times.mixer_ns);
      ops.rms_norm(x, layer.input_norm, eps, h);
      if (layer.type == LayerType::kFullAttention) {
        attention_block(step, layer.attention, attention_shape_, rope_, index, segments, n);
      } else {
        delta_net(step, layer, index, segments, n);
      }
      ops.add(x, y, x);
      ops.rms_norm(x, layer.post_attention_norm, eps, h);
    }
    const bool is_last = index + 1 == config_.num_hidden_layers;
    const Matrix* next_router =
        is_last ? nullptr : &layers_[static_cast<size_t>(index) + 1].moe.router;
    PENSTOCK_TRY(moe_block(step, index, layer.moe, next_router, n));
    ops.add(x, y, x);
  }
  PENSTOCK_TRY(head_block(step, head_, segments, on_logits));
  int64_t first = 0;
  for (const Segment& segment : segments) {
    const int64_t count = segment.state->rows();
    if (segment.state->drafts()) {
      remember(step, tokens.subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
               x.slice(first, count), *segment.state);
    }
    first += count;
  }
  PENSTOCK_CHECK(first == n);
  return {};
}

void Qwen35Moe::delta_net(Step& step, const Layer& layer, int64_t index,
                          std::span<const Segment> segments, int64_t tokens) const {
  const ScratchRows& rows = step.scratch.rows();
  const DeltaNetLayer& weights = layer.delta_net;
  const Rows qkv = with_width(rows.mixer_in.first(tokens), weights.in_proj_qkv.rows);
  const Rows z = with_width(rows.mixer_gate.first(tokens), weights.in_proj_z.rows);
  const Rows b = rows.beta.first(tokens), a = rows.decay.first(tokens);
  const Rows out = with_width(rows.mixer_out.first(tokens), weights.out_proj.columns);
  std::vector<DeltaNetCall>& calls = step.scratch.delta_net_calls();
  calls.clear();
  int64_t first = 0;
  for (const Segment& segment : segments) {
    const int64_t count = segment.state->rows();
    calls.push_back({.shape = delta_net_shape_,
                     .weights = weights.weights,
                     .before = segment.state->before(index),
                     .after = segment.state->after(index),
                     .ahead = segment.state->ahead(index),
                     .qkv = qkv.slice(first, count),
                     .z = z.slice(first, count),
                     .b = b.slice(first, count),
                     .a = a.slice(first, count),
                     .out = out.slice(first, count)});
    first += count;
  }
  step.backend.delta_net_block({.x = rows.h.first(tokens),
                                .qkv = {weights.in_proj_qkv, nullptr, qkv},
                                .z = {weights.in_proj_z, nullptr, z},
                                .b = {weights.in_proj_b, nullptr, b},
                                .a = {weights.in_proj_a, nullptr, a},
                                .calls = calls,
                                .mixed = out,
                                .output = {weights.out_proj, nullptr, rows.y.first(tokens)}});
}

}  // namespace penstock
