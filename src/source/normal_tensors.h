// The resident tensors of a model in normal form: what a source must have, in the order of the
// family's list (model/tensors.h).
//
// Source  docs/formats.md, "resident.bin".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace penstock {

struct NormalTensor {
  std::string name;
  int64_t rows = 0;
  int64_t columns = 0;
  bool is_plain = false;         // a vector (one row) or the convolution
  bool may_quantise = false;     // false: routers and other small matrices that stay as they are
  bool is_zero_centred = false;  // a norm that a source may store as w or as 1 + w
};

// With those of the prediction block, if config.mtp_num_hidden_layers is 1, at the end.
std::vector<NormalTensor> normal_tensors(const ModelConfig& config);

// layers.N.REST or mtp.REST, taken apart. The prediction block's layer has the number after the
// last; what is of no layer (embed_tokens, norm, lm_head, mtp.fc and its norms) has -1.
struct NormalName {
  int64_t layer = -1;
  bool is_prediction = false;
  std::string_view rest;  // "self_attn.q_proj"; of no layer: the name, without "mtp."
};
NormalName split_normal_name(std::string_view name, const ModelConfig& config);

// The layers that have experts, in the order of the store; that of a prediction block, whose number
// is the one after the last, at the end.
std::vector<int64_t> expert_layers(const ModelConfig& config);

// Where a value head of the normal order lies in the tiled order of a GGUF file: (h mod r) Hk +
// h/r.
std::vector<int64_t> tiled_value_heads(const ModelConfig& config);

}  // namespace penstock
