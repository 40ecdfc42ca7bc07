// Blocks that several families' graphs are made of: attention, and the head.
//
// Each takes its rows from the pass's scratch (model/scratch.h) and says which. The mixture of
// experts has a file of its own, moe.h.
//
// Shapes   n tokens of all segments, H hidden, V vocabulary
// Threads  the computing thread
// Memory   views into resident memory that the caller keeps alive
// Errors   bind functions: kCorrupt naming the tensor. head_block(): the observer's
// Source   docs/model.md, Attention and Forward pass
#pragma once

#include <span>
#include <string>

#include "model/model.h"
#include "model/step.h"
#include "model/weights.h"

namespace penstock {

struct AttentionLayer {
  Matrix q_proj, k_proj, v_proj, o_proj;
  const float *q_bias = nullptr, *k_bias = nullptr, *v_bias = nullptr, *o_bias = nullptr;
  AttentionWeights norms{};
};
// Tensors named `prefix` + q_proj and so on; biases where they are listed.
Result<AttentionLayer> bind_attention(WeightBinder& weights, const std::string& prefix);

// From rows.h to rows.y, each segment with its own cache. `layer`: of the decoder.
void attention_block(Step& step, const AttentionLayer& weights, const AttentionShape& shape,
                     const RopeTable& rope, int64_t layer, std::span<const Segment> segments,
                     int64_t tokens);

struct HeadWeights {
  std::span<const float> norm;  // [H]
  Matrix lm_head;               // [V, H]
  float rms_norm_eps = 0;
};
// "norm" and "lm_head", or `embedding` where the two are tied.
Result<HeadWeights> bind_head(WeightBinder& weights, const ModelConfig& config,
                              const Matrix& embedding);

// Logits of the wanted rows of rows.x, as many at a time as the scratch has rows of logits: the
// head, which is read once for each block, serves several sequences. Overwrites rows.h.
Result<void> head_block(Step& step, const HeadWeights& weights, std::span<const Segment> segments,
                        const LogitsObserver& on_logits);

}  // namespace penstock
