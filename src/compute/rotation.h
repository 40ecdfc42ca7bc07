// Rotary positions, as attention applies them to a head.
//
// Threads  pure function
#pragma once

#include <cstdint>

namespace penstock {

// The pairs (i, i + half) of a head's first 2 * half components rotate, the others stay. cosine, sine: [half], of
// the position.
inline void rotate_pairs(float* head, const float* cosine, const float* sine, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = head[i];
    const float second = head[half + i];
    head[i] = first * cosine[i] - second * sine[i];
    head[half + i] = second * cosine[i] + first * sine[i];
  }
}

}  // namespace penstock
