// The scale of a block of activations in 16-bit fixed point (Arithmetic::kFixed16): how 64 numbers
// become integers from -32639 to 32639.
//
// 32639 = 127 * 256 + 127, so that a code splits exactly into two signed bytes, q = 256 h + l with
// l = the low byte as a signed number and h = (q - l) / 256, or into a signed and an unsigned one:
// what int8 units multiply. compute/panel.h says what a product does with the codes.
//
// Worked example  largest 2:  factor = 32639 * 0.5,  scale = 2 * (1 / 32639);  x = 1 becomes
//                 1 * 16319.5 = 16320 (the even neighbour), which stands for 1.0000306
#pragma once

#include <cstdint>
#include <limits>

#include "compute/exact_math.h"

namespace penstock {

inline constexpr int32_t kFixedCodeMax = 127 * 256 + 127;
inline constexpr float kFixedCodeStep = 0x1.010306p-15f;  // 1 / 32639

// Blocks whose largest number is smaller are scaled as if it were this: the factor stays finite,
// and no product of a code's sum with the scales of a matrix becomes subnormal.
inline constexpr float kFixedLargestMin = 0x1p-60f;

// From here on the reciprocal would leave the normal numbers: such a block counts as infinite.
inline constexpr float kFixedLargestEnd = 0x1p96f;

struct FixedScale {
  float factor;  // q = x * factor, to the nearest even integer
  float scale;   // what a code of 1 stands for; not a number if the block holds what is not finite

  // largest: of the |x| of the block, not a number if an x is none.
  explicit FixedScale(float largest) {
    if (!(largest < kFixedLargestEnd)) {
      factor = 0;
      scale = std::numeric_limits<float>::quiet_NaN();
      return;
    }
    const float m = largest < kFixedLargestMin ? kFixedLargestMin : largest;
    factor = static_cast<float>(kFixedCodeMax) * exact_reciprocal(m);
    scale = m * kFixedCodeStep;
  }

  bool is_number() const { return scale == scale; }
};

}  // namespace penstock
