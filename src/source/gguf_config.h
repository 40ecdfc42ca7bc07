// The architecture that the keys of a GGUF file describe, as a config.json in normal form.
//
// Keys have been spelled in several ways over the years; what is not there is derived as the file's
// writers of that time derived it (docs/formats.md, "GGUF"). Ranges are parse_model_config()'s
// matter, which reads the result.
//
// Errors  kUnsupported: another architecture. kNotFound, kCorrupt: by the key.
// Source  docs/formats.md, "GGUF"
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "format/gguf.h"

namespace penstock {

Result<Json> gguf_config(const GgufModel& model);

}  // namespace penstock
