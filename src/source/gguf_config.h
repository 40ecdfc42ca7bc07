// The architecture that the keys of a GGUF file describe.
//
// Keys have been spelled in several ways over the years; what is not there is derived as the file's
// writers of that time derived it. What must hold for numbers of a config.json holds for them.
//
// Errors  kUnsupported: another architecture. kNotFound, kCorrupt: by the file's key.
// Source  docs/formats.md, "GGUF"
#pragma once

#include "base/result.h"
#include "format/gguf.h"
#include "model/config.h"

namespace penstock {

Result<ModelConfig> gguf_config(const GgufModel& model);

}  // namespace penstock
