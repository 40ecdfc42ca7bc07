// The id of a token: an index into the rows of a model's embedding.
#pragma once

#include <cstdint>

namespace penstock {

using TokenId = int32_t;

}  // namespace penstock
