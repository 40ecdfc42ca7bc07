// qwen3_5_moe (and qwen3_next): the decoder graph, with its resident weights bound.
//
// Pre-norm layers; three of four mix tokens by a gated delta-net, the fourth by gated full
// attention; every layer has a mixture of experts with one shared expert. This file is the whole
// forward pass for text; the routed experts are somebody else's (experts/experts.h).
//
// Threads  the computing thread
// Memory   views into resident memory that the caller keeps alive
// Errors   bind(): kCorrupt naming the tensor. forward(), draft(): those of model/model.h
// Source   docs/model.md; names of tensors as in docs/formats.md
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "model/blocks.h"
#include "model/config.h"
#include "model/model.h"
#include "model/moe.h"
#include "model/state.h"
#include "model/step.h"
#include "model/weights.h"

namespace penstock {

class Qwen35Moe final : public Model {
 public:
  static Result<Qwen35Moe> bind(const ModelConfig& config, WeightBinder& weights, RopeTable rope);

  Result<void> forward(Step& step, std::span<const int32_t> tokens,
                       std::span<const Segment> segments,
                       const LogitsObserver& on_logits) const override;
  Result<Rows> draft(Step& step, int32_t next, SequenceState& state) const override;
  const ModelConfig& config() const override { return config_; }

 private:
  struct DeltaNetLayer {
    Matrix in_proj_qkv, in_proj_z, in_proj_b, in_proj_a, out_proj;
    DeltaNetWeights weights{};
  };
  struct Layer {
    LayerType type = LayerType::kLinearAttention;
    std::span<const float> input_norm, post_attention_norm;
    AttentionLayer attention;  // of its type only
    DeltaNetLayer delta_net;
    MoeWeights moe;
  };
  // Multi-token prediction (docs/model.md): one more attention layer, on the next token's
  // embedding and this position's hidden state.
  struct PredictionBlock {
    std::span<const float> embedding_norm, hidden_norm, norm;
    Matrix fc;  // [H, 2H], the embedding's part first
    Layer layer;
  };

  static Result<Layer> bind_layer(const std::string& prefix, LayerType type, WeightBinder& weights);
  static Result<DeltaNetLayer> bind_delta_net(const std::string& prefix, WeightBinder& weights);
  static Result<PredictionBlock> bind_prediction(WeightBinder& weights);
  void delta_net(Step& step, const Layer& layer, int64_t index, std::span<const Segment> segments,
                 int64_t tokens) const;

  // qwen3_5_moe_draft.cc: `x` and `tokens` are one segment's rows.
  void pair(Step& step, std::span<const int32_t> tokens, Rows before, Rows hidden) const;
  void remember(Step& step, std::span<const int32_t> tokens, Rows x, SequenceState& state) const;
  void draft_attention(Step& step, const SequenceState& state) const;

  ModelConfig config_;
  AttentionShape attention_shape_;
  DeltaNetShape delta_net_shape_;
  RopeTable rope_{};
  Matrix embed_tokens_;
  HeadWeights head_;
  std::vector<Layer> layers_;
  std::optional<PredictionBlock> prediction_;
};

}  // namespace penstock
