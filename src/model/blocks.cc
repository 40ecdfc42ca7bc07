#include "model/blocks.h"

#include <array>

namespace penstock {

Result<AttentionLayer> bind_attention(WeightBinder& weights, const std::string& prefix) {
  AttentionLayer layer;
  layer.q_proj = PENSTOCK_TRY(weights.matrix(prefix + "q_proj"));
  layer.k_proj = PENSTOCK_TRY(weights.matrix(prefix + "k_proj"));
  layer.v_proj = PENSTOCK_TRY(weights.matrix(prefix + "v_proj"));
  layer.o_proj = PENSTOCK_TRY(weights.matrix(prefix + "o_proj"));
  if (weights.is_listed(prefix + "q_proj.bias")) {
    layer.q_bias = PENSTOCK_TRY(weights.vector(prefix + "q_proj.bias")).data();
    layer.k_bias = PENSTOCK_TRY(weights.vector(prefix + "k_proj.bias")).data();
    layer.v_bias = PENSTOCK_TRY(weights.vector(prefix + "v_proj.bias")).data();
    layer.o_bias = PENSTOCK_TRY(weights.vector(prefix + "o_proj.bias")).data();
  }
  layer.norms.q_norm = PENSTOCK_TRY(weights.vector(prefix + "q_norm")).data();
  layer.norms.k_norm = PENSTOCK_TRY(weights.vector(prefix + "k_norm")).data();
  return layer;
}

void attention_block(Step& step, const AttentionLayer& weights, const AttentionShape& shape,
                     const RopeTable& rope, int64_t layer, std::span<const Segment> segments,
                     int64_t tokens) {
  const ScratchRows& rows = step.scratch.rows();
  const int64_t kv_width = shape.kv_width();
  const Rows q = with_width(rows.mixer_in.first(tokens), shape.query_width());
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
    step.backend.attention({.shape = shape,
                            .weights = weights.norms,
                            .rope = rope,
                            .cache = segment.state->kv(layer),
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

Result<HeadWeights> bind_head(WeightBinder& weights, const ModelConfig& config,
                              const Matrix& embedding) {
  HeadWeights head;
  head.norm = PENSTOCK_TRY(weights.vector("norm"));
  head.lm_head = embedding;
  head.rms_norm_eps = static_cast<float>(config.rms_norm_eps);
  if (!config.tie_word_embeddings) head.lm_head = PENSTOCK_TRY(weights.matrix("lm_head"));
  return head;
}

Result<void> head_block(Step& step, const HeadWeights& weights, std::span<const Segment> segments,
                        const LogitsObserver& on_logits) {
  const PartTimer timer(step.times.head_ns);
  const ScratchRows& rows = step.scratch.rows();
  struct Wanted {
    size_t segment;
    int64_t row;
  };
  std::array<Wanted, kLogitsRowsMax> block;
  int64_t filled = 0;
  const auto flush = [&]() -> Result<void> {
    if (filled == 0) return {};
    const Rows logits = rows.logits.first(filled);
    const Projection output[] = {{weights.lm_head, nullptr, logits}};
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
      step.backend.rms_norm(rows.x.slice(first + row, 1), weights.norm, weights.rms_norm_eps,
                            rows.h.slice(filled, 1));
      block[static_cast<size_t>(filled++)] = {s, row};
      if (filled == rows.logits.count) PENSTOCK_TRY(flush());
    }
    first += count;
  }
  return flush();
}

}  // namespace penstock
