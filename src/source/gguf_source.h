// A GGUF file, or the first shard of a split one, in normal form.
//
// The converter keeps one thing of the architecture in an order of its own (qwen35moe only, where
// there are more value heads than key heads): value heads are tiled, head n of the file being head
// (n mod Hk) r + n div Hk of the model. It moves whole rows, which are named in normal order here,
// and the columns of ssm_out, which are told as a ColumnOrder. Norms and the decay are stored as
// they are used.
//
// Errors  As of ModelSource::open().
// Source  docs/formats.md, "GGUF"
#pragma once

#include <string>

#include "base/result.h"
#include "io/storage.h"
#include "source/model_source.h"

namespace penstock {

Result<SourceParts> open_gguf_source(Storage& storage, const std::string& path);

}  // namespace penstock
