// What a GGUF file of a delta-net model has besides its weights, for tests that write one.
#pragma once

#include <string>
#include <vector>

#include "compute/panel.h"
#include "format/test_gguf.h"
#include "model/config.h"
#include "quant/block_type.h"

namespace penstock::test {

// The metadata, and a tensor's name by its normal one. The architecture is qwen3next: its heads are in
// the model's order. Delta-net families only.
std::vector<std::string> gguf_keys(const ModelConfig& config);
std::string gguf_name(const std::string& normal, const ModelConfig& config);

// Of a small model whose widths are whole units of every coding.
ModelConfig small_coded_config();

// A small model whose matrices and experts are random blocks of these types, in turns; their scales are
// such that activations stay of order one. Written once per program; its path.
std::string coded_checkpoint(const std::string& name, const std::vector<BlockType>& types);

}  // namespace penstock::test
