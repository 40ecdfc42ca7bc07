// Logits that are not numbers, found at the token where they appear: from there on every choice would
// be noise that looks like an answer.
//
// Threads  plain function
// Errors   kCorrupt, naming the position
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"

namespace penstock {

// `position` of the token that these logits choose.
Result<void> check_logits(std::span<const float> logits, int64_t position);

}  // namespace penstock
