// What `penstock show` tells about a path: a packed model, a Hugging Face folder, a safetensors
// file.
//
// Reads headers and manifests only, no weights. The same facts come as JSON, for programs, and as
// text, for people; names from files are escaped in the text (JSON escapes by itself).
//
// Errors  What opening the thing returns. A folder that could be opened but not packed is described
//         all the same, with the reason.
#pragma once

#include <string>

#include "base/json.h"
#include "base/result.h"
#include "io/storage.h"

namespace penstock {

enum class DescribeDetail { kSummary, kTensors };

struct Description {
  Json json;
  std::string text;  // lines, each ending in a newline
};

Result<Description> describe(Storage& storage, const std::string& path, DescribeDetail detail);

}  // namespace penstock
