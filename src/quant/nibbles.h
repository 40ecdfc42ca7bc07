// Blocks of 32 codes of which two share a byte: code i lies in the low half of byte i, code i + 16 in
// its high half.
#pragma once

#include <cstdint>

namespace penstock {

inline constexpr int kHalfBlock = 16;

inline int nibble_of(const uint8_t* q, int i) {
  return i < kHalfBlock ? q[i] & 15 : q[i - kHalfBlock] >> 4;
}

}  // namespace penstock
