#include "engine/logits_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

namespace penstock {

Result<void> check_logits(std::span<const float> logits, int64_t position) {
  constexpr uint32_t kExponent = 0x7f800000;  // all ones: infinity or NaN
  uint32_t found = 0;
  for (const float x : logits) found |= (std::bit_cast<uint32_t>(x) & kExponent) == kExponent;
  if (found == 0) return {};
  const auto first = std::ranges::find_if(logits, [](float x) { return !std::isfinite(x); });
  return Error{
      ErrorCode::kCorrupt,
      fmt::format(
          "the logits of position {} are not all numbers (token {}: {}): the model's weights "
          "are damaged or too large for float32; `penstock pack --verify MODEL` tells "
          "whether they are those that were packed",
          position, first - logits.begin(), *first)};
}

}  // namespace penstock
