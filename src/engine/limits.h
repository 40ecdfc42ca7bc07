// From a model's shape to the sizes that its scratch memory and its kernels are made for.
#pragma once

#include "compute/backend.h"
#include "model/config.h"
#include "model/scratch.h"

namespace penstock {

inline constexpr int64_t kLogitsRows = 4;  // logits of a whole prompt are made this many at a time

// `sequences`: that may want logits in one pass.
ScratchShape scratch_shape(int64_t chunk_tokens, int64_t experts_per_token, int sequences);
// coded_columns: of the widest matrix in coded rows; 0: all are in panels.
BackendLimits backend_limits(const ModelConfig& config, const ScratchShape& shape, int64_t context,
                             int64_t coded_columns, KvForm kv_form = KvForm::kFloat32);

}  // namespace penstock
