// A Hugging Face folder in BF16, F16 or F32 as what a pack is made from.
//
// Errors  As PackPlan::make(), Converter and derive_model_id().
#pragma once

#include <memory>

#include "base/result.h"
#include "pack/pack_input.h"

namespace penstock {

Result<std::unique_ptr<PackInput>> open_checkpoint_input(Storage& storage,
                                                         const PackOptions& options,
                                                         const std::stop_token& stop);

}  // namespace penstock
