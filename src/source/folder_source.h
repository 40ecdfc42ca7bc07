// A Hugging Face or MLX folder in normal form.
//
// Plain, FP8 and MLX-quantised tensors may stand side by side: each is what its own tensors say
// (X.weight_scale_inv beside it: FP8; X.scales: MLX), not what the config says of all. Experts may
// be two fused tensors, three stacked ones or three per expert.
//
// MLX stores norms as 1 + w and the convolution as [channels, kernel, 1]; the latter is the sign.
//
// Errors  As of ModelSource::open().
// Source  docs/formats.md, "Sources" and "Normal form"
#pragma once

#include <string>

#include "base/result.h"
#include "io/storage.h"
#include "source/model_source.h"

namespace penstock {

Result<SourceParts> open_folder_source(Storage& storage, const std::string& directory);

}  // namespace penstock
