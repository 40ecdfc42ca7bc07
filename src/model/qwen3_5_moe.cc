#include "model/qwen3_5_moe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace penstock {
namespace {

Result<std::span<const float>> bind_norm(WeightBinder& weights, const std::string& name,
                                         int64_t width) {
  const float* values = PENSTOCK_TRY(weights.vector(name, width));
  return std::span(values, static_cast<size_t>(width));
}

}  // namespace

AttentionShape attention_shape(const ModelConfig& config) {
  return {.heads = static_cast<int>(config.num_attention_heads),
          .kv_heads = static_cast<int>(config.num_key_value_heads),
          .head_dim = static_cast<int>(config.head_dim),
          .rotary_dim = static_cast<int>(config.rotary_dim()),
          .rms_norm_eps = static_cast<float>(config.rms_norm_eps)};
}

DeltaNetShape delta_net_shape(const ModelConfig& config) {
  return {.key_heads = static_cast<int>(config.linear_num_key_heads),
          .value_heads = static_cast<int>(config.linear_num_value_heads),
          .key_dim = static_cast<int>(config.linear_key_head_dim),
          .value_dim = static_cast<int>(config.linear_value_head_dim),
          .conv_kernel = static_cast<int>(config.linear_conv_kernel_dim),
          .rms_norm_eps = static_cast<float>(config.rms_norm_eps)};
}

Result<Qwen35Moe> Qwen35Moe::bind(const ModelConfig& config, WeightBinder& weights,
                                  RopeTable rope) {
  Qwen35Moe model;
  model.config_ = config;
  model.attention_shape_ = attention_shape(config);
  model.delta_net_shape_ = delta_net_shape(config);
  model.rope_ = rope;
  model.embed_tokens_ =
      PENSTOCK_TRY(weights.matrix("embed_tokens", config.vocab_size, config.hidden_size));
  model.lm_head_ = model.embed_tokens_;
  if (!config.tie_word_embeddings) {
    model.lm_head_ = PENSTOCK_TRY(weights.matrix("lm_head", config.vocab_size, config.hidden_size));
  }
  model.final_norm_ = PENSTOCK_TRY(bind_norm(weights, "norm", config.hidden_size));
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    model.layers_.push_back(
        PENSTOCK_TRY(model.bind_layer(fmt::format("layers.{}.", layer),
                                      config.layer_types[static_cast<size_t>(layer)], weights)));
  }
  if (config.mtp_num_hidden_layers > 0) {
    model.prediction_ = PENSTOCK_TRY(model.bind_prediction(weights));
  }
  PENSTOCK_TRY(weights.expect_all_bound());
  return model;
}

Result<Qwen35Moe::Layer> Qwen35Moe::bind_layer(const std::string& prefix, LayerType type,
                                               WeightBinder& weights) const {
  const int64_t hidden = config_.hidden_size;
  const int64_t shared = config_.shared_expert_intermediate_size;
  Layer layer;
  layer.type = type;
  layer.input_norm = PENSTOCK_TRY(bind_norm(weights, prefix + "input_layernorm", hidden));
  layer.post_attention_norm =
      PENSTOCK_TRY(bind_norm(weights, prefix + "post_attention_layernorm", hidden));
  if (layer.type == LayerType::kFullAttention) {
    layer.attention = PENSTOCK_TRY(bind_attention(prefix + "self_attn.", weights));
  } else {
    layer.delta_net = PENSTOCK_TRY(bind_delta_net(prefix + "linear_attn.", weights));
  }
  const std::string mlp = prefix + "mlp.";
  layer.moe.router = PENSTOCK_TRY(weights.matrix(mlp + "gate", config_.num_experts, hidden));
  layer.moe.shared_gate = PENSTOCK_TRY(weights.matrix(mlp + "shared_expert_gate", 1, hidden));
  layer.moe.shared_gate_proj =
      PENSTOCK_TRY(weights.matrix(mlp + "shared_expert.gate_proj", shared, hidden));
  layer.moe.shared_up_proj =
      PENSTOCK_TRY(weights.matrix(mlp + "shared_expert.up_proj", shared, hidden));
  layer.moe.shared_down_proj =
      PENSTOCK_TRY(weights.matrix(mlp + "shared_expert.down_proj", hidden, shared));
  return layer;
}

Result<Qwen35Moe::AttentionLayer> Qwen35Moe::bind_attention(const std::string& prefix,
                                                            WeightBinder& weights) const {
  const int64_t hidden = config_.hidden_size;
  const int64_t query_width = config_.num_attention_heads * config_.head_dim;
  const int64_t kv_width = config_.num_key_value_heads * config_.head_dim;
  AttentionLayer layer;
  layer.q_proj = PENSTOCK_TRY(weights.matrix(prefix + "q_proj", 2 * query_width, hidden));
  layer.k_proj = PENSTOCK_TRY(weights.matrix(prefix + "k_proj", kv_width, hidden));
  layer.v_proj = PENSTOCK_TRY(weights.matrix(prefix + "v_proj", kv_width, hidden));
  layer.o_proj = PENSTOCK_TRY(weights.matrix(prefix + "o_proj", hidden, query_width));
  if (config_.attention_bias) {
    layer.q_bias = PENSTOCK_TRY(weights.vector(prefix + "q_proj.bias", 2 * query_width));
    layer.k_bias = PENSTOCK_TRY(weights.vector(prefix + "k_proj.bias", kv_width));
    layer.v_bias = PENSTOCK_TRY(weights.vector(prefix + "v_proj.bias", kv_width));
    layer.o_bias = PENSTOCK_TRY(weights.vector(prefix + "o_proj.bias", hidden));
  }
  layer.norms.q_norm = PENSTOCK_TRY(weights.vector(prefix + "q_norm", config_.head_dim));
  layer.norms.k_norm = PENSTOCK_TRY(weights.vector(prefix + "k_norm", config_.head_dim));
  return layer;
}

Result<Qwen35Moe::DeltaNetLayer> Qwen35Moe::bind_delta_net(const std::string& prefix,
                                                           WeightBinder& weights) const {
  const int64_t hidden = config_.hidden_size;
  const int64_t heads = config_.linear_num_value_heads;
  const int64_t value_width = heads * config_.linear_value_head_dim;
  const int64_t channels = config_.conv_channels();
  DeltaNetLayer layer;
  layer.in_proj_qkv = PENSTOCK_TRY(weights.matrix(prefix + "in_proj_qkv", channels, hidden));
  layer.in_proj_z = PENSTOCK_TRY(weights.matrix(prefix + "in_proj_z", value_width, hidden));
  layer.in_proj_b = PENSTOCK_TRY(weights.matrix(prefix + "in_proj_b", heads, hidden));
  layer.in_proj_a = PENSTOCK_TRY(weights.matrix(prefix + "in_proj_a", heads, hidden));
  layer.out_proj = PENSTOCK_TRY(weights.matrix(prefix + "out_proj", hidden, value_width));
  layer.weights.conv =
      PENSTOCK_TRY(weights.vector(prefix + "conv1d", channels, config_.linear_conv_kernel_dim));
  layer.weights.decay = PENSTOCK_TRY(weights.vector(prefix + "decay", heads));
  layer.weights.dt_bias = PENSTOCK_TRY(weights.vector(prefix + "dt_bias", heads));
  layer.weights.norm = PENSTOCK_TRY(weights.vector(prefix + "norm", config_.linear_value_head_dim));
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
        attention(step, layer, index, segments, n);
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
  PENSTOCK_TRY(head(step, segments, on_logits));
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

void Qwen35Moe::attention(Step& step, const Layer& layer, int64_t index,
                          std::span<const Segment> segments, int64_t tokens) const {
  const ScratchRows& rows = step.scratch.rows();
  const AttentionLayer& weights = layer.attention;
  const int64_t kv_width = attention_shape_.kv_width();
  const Rows q = with_width(rows.mixer_in.first(tokens), attention_shape_.query_width());
  const Rows k = rows.mixer_gate.first(tokens).columns(0, kv_width);
  const Rows v = rows.mixer_gate.first(tokens).columns(kv_width, kv_width);
  const Rows out = with_width(rows.mixer_out.first(tokens), weights.o_proj.columns);
  const Projection inputs[] = {{weights.q_proj, weights.q_bias, q},
                               {weights.k_proj, weights.k_bias, k},
                               {weights.v_proj, weights.v_bias, v}};
  step.backend.matmul(rows.h.first(tokens), inputs);
  int64_t first = 0;
  for (const Segment& segment : segments) {
    const int64_t count = segment.state->rows();
    step.backend.attention({.shape = attention_shape_,
                            .weights = weights.norms,
                            .rope = rope_,
                            .cache = segment.state->kv(index),
                            .first_position = segment.state->length(),
                            .q = q.slice(first, count),
                            .k = k.slice(first, count),
                            .v = v.slice(first, count),
                            .out = out.slice(first, count)});
    first += count;
  }
  const Projection output[] = {{weights.o_proj, weights.o_bias, rows.y.first(tokens)}};
  step.backend.matmul(out, output);
}

void Qwen35Moe::delta_net(Step& step, const Layer& layer, int64_t index,
                          std::span<const Segment> segments, int64_t tokens) const {
  const ScratchRows& rows = step.scratch.rows();
  const DeltaNetLayer& weights = layer.delta_net;
  const Rows qkv = with_width(rows.mixer_in.first(tokens), weights.in_proj_qkv.rows);
  const Rows z = with_width(rows.mixer_gate.first(tokens), weights.in_proj_z.rows);
  const Rows b = rows.beta.first(tokens), a = rows.decay.first(tokens);
  const Rows out = with_width(rows.mixer_out.first(tokens), weights.out_proj.columns);
  const Projection inputs[] = {{weights.in_proj_qkv, nullptr, qkv},
                               {weights.in_proj_z, nullptr, z},
                               {weights.in_proj_b, nullptr, b},
                               {weights.in_proj_a, nullptr, a}};
  step.backend.matmul(rows.h.first(tokens), inputs);
  int64_t first = 0;
  for (const Segment& segment : segments) {
    const int64_t count = segment.state->rows();
    step.backend.delta_net({.shape = delta_net_shape_,
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
  const Projection output[] = {{weights.out_proj, nullptr, rows.y.first(tokens)}};
  step.backend.matmul(out, output);
}

// The wanted rows of all segments, as many at a time as the scratch has rows of logits: the head,
// which is read once for each block, serves several sequences.
Result<void> Qwen35Moe::head(Step& step, std::span<const Segment> segments,
                             const LogitsObserver& on_logits) const {
  const PartTimer timer(step.times.head_ns);
  const ScratchRows& rows = step.scratch.rows();
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  struct Wanted {
    size_t segment;
    int64_t row;
  };
  std::array<Wanted, kLogitsRowsMax> block;
  int64_t filled = 0;
  const auto flush = [&]() -> Result<void> {
    if (filled == 0) return {};
    const Rows logits = rows.logits.first(filled);
    const Projection output[] = {{lm_head_, nullptr, logits}};
    step.backend.matmul(rows.h.first(filled), output);
    for (int64_t i = 0; i < filled; ++i) {
      const Wanted& wanted = block[static_cast<size_t>(i)];
      PENSTOCK_TRY(on_logits(wanted.segment, wanted.row, logits.slice(i, 1)));
    }
    filled = 0;
    return {};
  };
  int64_t first = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t count = segments[s].state->rows();
    int64_t row = segments[s].logits_of == LogitsOf::kEveryRow  ? 0
                  : segments[s].logits_of == LogitsOf::kLastRow ? count - 1
                                                                : count;
    for (; row < count; ++row) {
      step.backend.rms_norm(rows.x.slice(first + row, 1), final_norm_, eps,
                            rows.h.slice(filled, 1));
      block[static_cast<size_t>(filled++)] = {s, row};
      if (filled == rows.logits.count) PENSTOCK_TRY(flush());
    }
    first += count;
  }
  return flush();
}

}  // namespace penstock
