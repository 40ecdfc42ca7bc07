#include "model/scratch.h"

#include <algorithm>

namespace penstock {
namespace {

constexpr int64_t kLineFloats = 16;  // rows start on a cache line

// Lays out all buffers from `base` (nullptr: only measures). Returns the floats taken.
int64_t lay_out(const ModelConfig& config, const ScratchShape& shape, float* base, Place place,
                ScratchRows& rows) {
  int64_t used = 0;
  const auto take = [&](int64_t count, int64_t width) {
    const int64_t stride = (width + kLineFloats - 1) / kLineFloats * kLineFloats;
    const Rows view{base == nullptr ? nullptr : base + used, count, width, stride, place};
    used += count * stride;
    return view;
  };
  const int64_t n = shape.chunk_tokens;
  const int64_t hidden = config.hidden_size;
  const bool has_shared = config.shared_expert_intermediate_size > 0;
  const int64_t value_width = config.linear_num_value_heads * config.linear_value_head_dim;
  const int64_t pair_width = config.mtp_num_hidden_layers > 0 ? 2 * hidden : 0;
  rows.x = take(n, hidden);
  rows.h = take(n, hidden);
  rows.y = take(n, hidden);
  rows.mixer_in = take(n, std::max({config.conv_channels(), config.query_rows(), pair_width}));
  rows.mixer_gate = take(n, std::max(value_width, 2 * config.kv_width()));
  rows.beta = take(n, config.linear_num_value_heads);
  rows.decay = take(n, config.linear_num_value_heads);
  rows.mixer_out = take(n, std::max(value_width, config.query_width()));
  rows.router_logits = take(n, config.num_experts);
  rows.expert_hidden = take(n * shape.experts_per_token, config.moe_intermediate_size);
  rows.expert_rows = take(n * shape.experts_per_token, hidden);
  rows.shared = take(has_shared ? n : 0, hidden);
  rows.shared_gate = take(has_shared ? n : 0, 1);
  rows.logits = take(shape.logits_rows, config.vocab_size);
  return used;
}

}  // namespace

uint64_t Scratch::bytes_needed(const ModelConfig& config, const ScratchShape& shape) {
  ScratchRows rows;
  return static_cast<uint64_t>(lay_out(config, shape, nullptr, {}, rows)) * sizeof(float);
}

Result<Scratch> Scratch::create(const ModelConfig& config, const ScratchShape& shape,
                                Memory& memory) {
  Scratch scratch;
  scratch.shape_ = shape;
  scratch.buffer_ =
      PENSTOCK_TRY(memory.take(bytes_needed(config, shape), "activations", Prefault::kYes));
  lay_out(config, shape, scratch.buffer_.floats(), memory.place(), scratch.rows_);
  return scratch;
}

}  // namespace penstock
