// The shapes that ops are called with, from a configuration. All zeros for what it has not.
#pragma once

#include "compute/backend.h"
#include "model/config.h"

namespace penstock {

AttentionShape attention_shape(const ModelConfig& config);
DeltaNetShape delta_net_shape(const ModelConfig& config);

}  // namespace penstock
