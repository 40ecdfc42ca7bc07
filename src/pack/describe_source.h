// What `penstock show` tells about a checkpoint that is quantised in a way of its own: a GGUF file,
// an MLX folder, an FP8 folder.
//
// Errors  As of ModelSource::open().
#pragma once

#include <string>

#include "pack/describe.h"

namespace penstock {

Result<Description> describe_source(Storage& storage, const std::string& path,
                                    DescribeDetail detail);

}  // namespace penstock
