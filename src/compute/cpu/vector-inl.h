// Vectors of f32 for the kernels: sixteen lanes at a time on every instruction set, as one vector
// or as several, so that sums have the same order everywhere.

#if defined(PENSTOCK_COMPUTE_CPU_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PENSTOCK_COMPUTE_CPU_VECTOR_INL_H_
#undef PENSTOCK_COMPUTE_CPU_VECTOR_INL_H_
#else
#define PENSTOCK_COMPUTE_CPU_VECTOR_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "compute/cpu/exact_math-inl.h"

// Before loops over vectors that are to stay in registers. Without vectors they are long and stay
// loops.
#undef PENSTOCK_UNROLL
#if HWY_TARGET == HWY_SCALAR || defined(PENSTOCK_UNROLL_NOTHING)
#define PENSTOCK_UNROLL
#else
#define PENSTOCK_UNROLL _Pragma("GCC unroll 16")
#endif

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {
using Floats = hn::CappedTag<float, 16>;
using Words = hn::RebindToUnsigned<Floats>;
using Ints = hn::RebindToSigned<Floats>;
using FloatVec = hn::Vec<Floats>;
using WordVec = hn::Vec<Words>;

inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(Floats()));
inline constexpr int kVectors = 16 / kLanes;  // of sixteen lanes

// The first `count` lanes, the others zero; all of them if there are more.
HWY_INLINE FloatVec LoadFirst(const float* place, int64_t count) {
  if (HWY_LIKELY(count >= kLanes)) return hn::LoadU(Floats(), place);
  alignas(64) float lanes[kLanes] = {};
  if (count > 0) std::memcpy(lanes, place, static_cast<size_t>(count) * sizeof(float));
  return hn::Load(Floats(), lanes);
}

HWY_INLINE void StoreFirst(FloatVec value, float* place, int64_t count) {
  if (HWY_LIKELY(count >= kLanes)) {
    hn::StoreU(value, Floats(), place);
    return;
  }
  alignas(64) float lanes[kLanes];
  hn::Store(value, Floats(), lanes);
  if (count > 0) std::memcpy(place, lanes, static_cast<size_t>(count) * sizeof(float));
}

// sum x y, products and sums rounded by themselves. Element i belongs to chain i mod 64; then
// chains 0-15, 16-31, 32-47, 48-63 are added as (0 + 1) + (2 + 3), and the sixteen sums left are
// halved: i + (i + 8), i + (i + 4), ...
HWY_INLINE float Dot(const float* x, const float* y, int64_t width) {
  FloatVec sums[4][kVectors];
  for (auto& chain : sums) {
    for (FloatVec& sum : chain) sum = hn::Zero(Floats());
  }
  for (int64_t start = 0; start < width; start += 64) {
    for (int chain = 0; chain < 4; ++chain) {
      for (int v = 0; v < kVectors; ++v) {
        const int64_t i = start + chain * 16 + v * kLanes;
        sums[chain][v] =
            TwiceRounded(LoadFirst(x + i, width - i), LoadFirst(y + i, width - i), sums[chain][v]);
      }
    }
  }
  alignas(64) float lanes[16];
  for (int v = 0; v < kVectors; ++v) {
    hn::Store(hn::Add(hn::Add(sums[0][v], sums[1][v]), hn::Add(sums[2][v], sums[3][v])), Floats(),
              lanes + v * kLanes);
  }
  for (int half = 8; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] + lanes[i + half];
  }
  return lanes[0];
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
