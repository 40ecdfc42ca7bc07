// The float32 twin of a checkpoint: what its weights decode to, as a GGUF file of plain floats.
#pragma once

#include <string>

#include "source/model_source.h"

namespace penstock::test {

// Writes the twin of the checkpoint at `source` into `folder`; its path. Delta-net families only.
std::string write_f32_twin(const std::string& source, const std::string& folder);

}  // namespace penstock::test
