// The resident tensors of a synthetic model: names and shapes as the model binds them, places as a
// pack lays them out, and what is put into each.
//
// Scales are chosen for activations of order one: a matrix has entries of variance 1 / inputs,
// norms are 1, the delta-net forgets over one to some hundred tokens.
//
// Limits   Widths are multiples of kGroupColumns.
// See also pack/synth.h
#pragma once

#include <cstdint>
#include <vector>

#include "format/manifest.h"
#include "model/config.h"

namespace penstock {

struct SynthTensor {
  enum class Fill : uint8_t {
    kRandom,    // around zero, with standard deviation `value`
    kConstant,  // `value`
    kDecay,     // -x, with log x uniform: a memory of one to some hundred tokens
  };
  ResidentTensor tensor;
  Fill fill = Fill::kRandom;
  float value = 0;
};
std::vector<SynthTensor> synthetic_tensors(const ModelConfig& config, DType resident);

}  // namespace penstock
