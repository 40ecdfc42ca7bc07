// The resident tensors of a synthetic model: the family's list (model/tensors.h), which says what
// is put into each, at the places where a pack puts them.
//
// Limits   Widths are multiples of kGroupColumns.
// See also pack/synth.h
#pragma once

#include <cstdint>
#include <vector>

#include "format/manifest.h"
#include "model/tensors.h"

namespace penstock {

struct SynthTensor {
  ResidentTensor tensor;
  SyntheticFill fill;
};
std::vector<SynthTensor> synthetic_tensors(const ModelConfig& config, DType resident);

}  // namespace penstock
