// A checkpoint that is quantised already (GGUF, MLX, FP8) as what a pack is made from.
//
// Unless types are asked for, no weight changes: codes stay as they are, laid out as the kernels read
// them, so that the packed model gives the bits of the checkpoint run in place. What is to be of
// another type is quantised from the values that the file stands for.
//
// Errors  As ModelSource; kCorrupt, naming tensor, row and column, for codes and scales that stand for no
//         weight; kInvalidArgument: widths that the wanted type cannot store, naming the flag.
#pragma once

#include <memory>

#include "base/result.h"
#include "pack/pack_input.h"

namespace penstock {

Result<std::unique_ptr<PackInput>> open_source_input(Storage& storage, const PackOptions& options,
                                                     const std::stop_token& stop);

}  // namespace penstock
