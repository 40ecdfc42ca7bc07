// Qwen35Moe: drafts by the prediction block (docs/model.md, Prediction block).
//
// For position p the block takes the final hidden state of p and the embedding of token p + 1, and
// predicts token p + 2. Its attention looks back on all positions, so every pass leaves the keys
// and values of its own positions behind (remember): they follow from the block's input alone,
// without attention and experts.
#include "model/families/qwen3_5_moe.h"

namespace penstock {

Result<Qwen35Moe::PredictionBlock> Qwen35Moe::bind_prediction(WeightBinder& weights) {
  PredictionBlock block;
  block.embedding_norm = PENSTOCK_TRY(weights.vector("mtp.pre_fc_norm_embedding"));
  block.hidden_norm = PENSTOCK_TRY(weights.vector("mtp.pre_fc_norm_hidden"));
  block.fc = PENSTOCK_TRY(weights.matrix("mtp.fc"));
  block.layer = PENSTOCK_TRY(bind_layer("mtp.", LayerType::kFullAttention, weights));
  block.norm = PENSTOCK_TRY(weights.vector("mtp.norm"));
  return block;
}

// The block's input for tokens[i] and the hidden state of the position before it: the row `before`,
// then the first rows of `hidden`. To rows.x, normed to rows.h; rows.y stays as it is.
void Qwen35Moe::pair(Step& step, std::span<const int32_t> tokens, Rows before, Rows hidden) const {
  const PredictionBlock& block = *prediction_;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const int64_t width = config_.hidden_size;
  const auto n = static_cast<int64_t>(tokens.size());
  const ScratchRows& rows = step.scratch.rows();
  const Rows x = rows.x.first(n), h = rows.h.first(n);
  const Rows pairs = with_width(rows.mixer_in.first(n), 2 * width);
  const Rows states = pairs.columns(width, width);
  Backend& ops = step.backend;
  ops.embed(embed_tokens_, tokens, h);
  ops.rms_norm(h, block.embedding_norm, eps, with_width(pairs, width));
  ops.rms_norm(before, block.hidden_norm, eps, states.first(1));
  if (n > 1) ops.rms_norm(hidden.first(n - 1), block.hidden_norm, eps, states.last(n - 1));
  const Projection projection[] = {{block.fc, nullptr, x}};
  ops.matmul(pairs, projection);
  ops.rms_norm(x, block.layer.input_norm, eps, h);
}

// At the end of a pass over `tokens`, whose outputs are x: the block's keys and values of the
// positions whose next token is known by now, and the hidden state of the last position.
void Qwen35Moe::remember(Step& step, std::span<const int32_t> tokens, Rows x,
                         SequenceState& state) const {
  const PartTimer timer(step.times.draft_ns);
  const auto n = static_cast<int64_t>(tokens.size());
  const int64_t first = state.length();  // position of tokens[0]
  const ScratchRows& rows = step.scratch.rows();
  const Rows hidden = rows.y.first(n);
  step.backend.rms_norm(x, head_.norm, static_cast<float>(config_.rms_norm_eps), hidden);
  step.backend.copy(hidden.slice(state.is_on_trial() ? n - 2 : n - 1, 1), state.next_hidden());
  if (state.is_on_trial()) step.backend.copy(hidden.last(1), state.trial_hidden());
  // The first token of a sequence follows no position.
  const int64_t skipped = first == 0 ? 1 : 0;
  if (n == skipped) return;
  const Rows before = first == 0 ? hidden.first(1) : state.hidden();
  pair(step, tokens.subspan(static_cast<size_t>(skipped)), before, hidden.last(n - skipped));
  const AttentionLayer& weights = prediction_->layer.attention;
  const int64_t kv_width = attention_shape_.kv_width();
  const int64_t count = n - skipped;
  const Rows k = rows.mixer_gate.first(count).columns(0, kv_width);
  const Rows v = rows.mixer_gate.first(count).columns(kv_width, kv_width);
  const Projection inputs[] = {{weights.k_proj, weights.k_bias, k},
                               {weights.v_proj, weights.v_bias, v}};
  step.backend.matmul(rows.h.first(count), inputs);
  step.backend.attention({.shape = attention_shape_,
                          .weights = weights.norms,
                          .rope = rope_,
                          .cache = state.draft_kv(),
                          .first_position = first - 1 + skipped,
                          .q = {},
                          .k = k,
                          .v = v,
                          .out = {}});
}

// The block's attention over all positions, for the row in rows.h; to rows.y.
void Qwen35Moe::draft_attention(Step& step, const SequenceState& state) const {
  const ScratchRows& rows = step.scratch.rows();
  const AttentionLayer& weights = prediction_->layer.attention;
  const int64_t kv_width = attention_shape_.kv_width();
  const Rows q = with_width(rows.mixer_in.first(1), attention_shape_.query_width());
  const Rows k = rows.mixer_gate.first(1).columns(0, kv_width);
  const Rows v = rows.mixer_gate.first(1).columns(kv_width, kv_width);
  const Rows out = with_width(rows.mixer_out.first(1), weights.o_proj.columns);
  const Projection inputs[] = {{weights.q_proj, weights.q_bias, q},
                               {weights.k_proj, weights.k_bias, k},
                               {weights.v_proj, weights.v_bias, v}};
  step.backend.matmul(rows.h.first(1), inputs);
  step.backend.attention({.shape = attention_shape_,
                          .weights = weights.norms,
                          .rope = rope_,
                          .cache = state.draft_kv(),
                          .first_position = state.length() - 1,
                          .q = q,
                          .k = k,
                          .v = v,
                          .out = out});
  const Projection output[] = {{weights.o_proj, weights.o_bias, rows.y.first(1)}};
  step.backend.matmul(out, output);
}

Result<Rows> Qwen35Moe::draft(Step& step, int32_t next, SequenceState& state) const {
  PENSTOCK_CHECK(state.drafts() && state.length() >= 1 && !state.has_trial());
  const PartTimer timer(step.times.draft_ns);
  const PredictionBlock& block = *prediction_;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const ScratchRows& rows = step.scratch.rows();
  const Rows x = rows.x.first(1), h = rows.h.first(1), y = rows.y.first(1);
  Backend& ops = step.backend;
  StepTimes inner;  // all of it is the time of the draft
  Step inside{ops, step.experts, step.scratch, step.moe, inner, step.stop, {}, {}, {}};

  pair(step, std::span(&next, 1), state.hidden(), {});
  draft_attention(step, state);
  ops.add(x, y, x);
  ops.rms_norm(x, block.layer.post_attention_norm, eps, h);
  PENSTOCK_TRY(moe_block(inside, config_.num_hidden_layers, block.layer.moe, nullptr, 1));
  ops.add(x, y, x);
  ops.rms_norm(x, block.norm, eps, h);
  const Rows logits = rows.logits.first(1);
  const Projection output[] = {{head_.lm_head, nullptr, logits}};
  ops.matmul(h, output);
  return logits;
}

}  // namespace penstock
