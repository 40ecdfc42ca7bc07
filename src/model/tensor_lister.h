// TensorLister: writes down a family's list, tensor by tensor.
//
// Holds the two places of the moment, the name in the packed model and the name in a checkpoint, so
// that a family says "q_proj" once. Blocks that several families have are here; what only one has
// stands in its file.
//
//   TensorLister out(prefix);
//   out.embedding(config);
//   out.at("layers.0.", prefix + "layers.0.");
//   out.norm("input_layernorm", hidden, Change::kAddOne);
//
// Threads  one
#pragma once

#include <string>
#include <string_view>

#include "model/tensors.h"

namespace penstock {

class TensorLister {
 public:
  // `prefix`: of the text model's tensors in the checkpoint, "model." or the like.
  explicit TensorLister(std::string_view prefix) : prefix_(prefix) {}

  // From now on `name` is `target + name` in the packed model and `source + name` in a checkpoint.
  void at(std::string target, std::string source);
  void at_layer(int64_t layer);  // layers.N. of the decoder
  void at_prediction_block();    // what the block has beside its layer
  void at_prediction_layer();
  const std::string& source() const { return source_; }

  // Each adds one tensor, whose source is `name` with ".weight".
  void matrix(ModelPart part, std::string_view name, int64_t rows, int64_t columns);
  void exact_matrix(ModelPart part, std::string_view name, int64_t rows, int64_t columns);
  void norm(ModelPart part, std::string_view name, int64_t width, Change change);
  // Any tensor: of the spec only name, shape, part and the rest that is not derived from the place.
  TensorSpec& add(TensorSpec spec);

  // Embedding; final norm and, where it is not tied, head.
  void embedding(const ModelConfig& config);
  void head(const ModelConfig& config, Change norm_change);

  // self_attn.*: q, k, v, o with biases where the configuration has them, norms of q and k.
  void attention(const ModelConfig& config, Change norm_change);
  // mlp.gate and the routed experts, fused ([E, 2I, H] and [E, H, I]) or one tensor each.
  void router(const ModelConfig& config);
  void experts(const ModelConfig& config);
  // `name` + gate_proj, up_proj, down_proj.
  void ffn(ModelPart part, std::string_view name, int64_t hidden, int64_t width);

  TensorList& list() { return list_; }
  TensorList take() { return std::move(list_); }

 private:
  void bias(std::string_view name, int64_t width);

  std::string prefix_, target_, source_;
  bool in_prediction_block_ = false;
  TensorList list_;
};

// One range that is a whole tensor.
SourceForm whole_tensor(std::string tensor, std::vector<int64_t> shape);

}  // namespace penstock
