#include "peaks.h"

#include <array>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../bench/peaks.cc"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/fixed_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

// Reads every byte; the result only keeps the compiler from leaving it out.
float ReadAll(const float* values, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (int64_t i = 0; i + 4 * lanes <= count; i += 4 * lanes) {
    a = hn::Add(a, hn::Load(d, values + i));
    b = hn::Add(b, hn::Load(d, values + i + lanes));
    c = hn::Add(c, hn::Load(d, values + i + 2 * lanes));
    e = hn::Add(e, hn::Load(d, values + i + 3 * lanes));
  }
  return hn::GetLane(hn::Add(hn::Add(a, b), hn::Add(c, e)));
}

// Twelve multiply-adds a round.
double FloatOperations(int64_t rounds, float* sink) {
  const hn::ScalableTag<float> d;
  // Different starts, or the compiler would see that the chains are one.
  auto v0 = hn::Iota(d, 0.0f), v1 = hn::Iota(d, 0.1f), v2 = hn::Iota(d, 0.2f),
       v3 = hn::Iota(d, 0.3f), v4 = hn::Iota(d, 0.4f), v5 = hn::Iota(d, 0.5f),
       v6 = hn::Iota(d, 0.6f), v7 = hn::Iota(d, 0.7f), v8 = hn::Iota(d, 0.8f),
       v9 = hn::Iota(d, 0.9f), v10 = hn::Iota(d, 1.0f), v11 = hn::Iota(d, 1.1f);
  const auto x = hn::Set(d, 0.999f);
  for (int64_t i = 0; i < rounds; ++i) {
    v0 = hn::MulAdd(v0, x, x), v1 = hn::MulAdd(v1, x, x), v2 = hn::MulAdd(v2, x, x);
    v3 = hn::MulAdd(v3, x, x), v4 = hn::MulAdd(v4, x, x), v5 = hn::MulAdd(v5, x, x);
    v6 = hn::MulAdd(v6, x, x), v7 = hn::MulAdd(v7, x, x), v8 = hn::MulAdd(v8, x, x);
    v9 = hn::MulAdd(v9, x, x), v10 = hn::MulAdd(v10, x, x), v11 = hn::MulAdd(v11, x, x);
  }
  const auto low = hn::Add(hn::Add(hn::Add(v0, v1), hn::Add(v2, v3)), hn::Add(v4, v5));
  const auto high = hn::Add(hn::Add(hn::Add(v6, v7), hn::Add(v8, v9)), hn::Add(v10, v11));
  *sink = hn::GetLane(hn::Add(low, high));
  return 2.0 * 12 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

// The compiler takes it for another number from here on, so that it makes no two products into one.
HWY_INLINE void Forget(WordVec& x) {
#if HWY_TARGET == HWY_SCALAR
  asm volatile("" : "+r"(x.raw));
#elif HWY_TARGET == HWY_EMU128
  asm volatile("" : "+m"(x.raw));
#elif HWY_ARCH_X86
  asm volatile("" : "+x"(x.raw));
#else
  asm volatile("" : "+w"(x.raw));
#endif
}

// Twelve sums a round, of pairs.
template <class Sum>
double PairOperations(int64_t rounds, float* sink) {
  Sum sums[12];
  PENSTOCK_UNROLL
  for (int i = 0; i < 12; ++i) sums[i].Clear();
  const WordVec codes = hn::Set(Words(), 0x000f0007u);
  WordVec x = hn::Set(Words(), 0x7f7f7fffu);
  for (int64_t round = 0; round < rounds; ++round) {
    PENSTOCK_UNROLL
    for (int i = 0; i < 12; ++i) {
      Forget(x);
      sums[i].Add(codes, x);
    }
  }
  IntVec total = sums[0].Total();
  PENSTOCK_UNROLL
  for (int i = 1; i < 12; ++i) total = hn::Xor(total, sums[i].Total());
  *sink = static_cast<float>(hn::GetLane(total));
  return 2.0 * 2 * 12 * kLanes * static_cast<double>(rounds);
}

double IntegerOperations(IntegerUnit unit, int64_t rounds, float* sink) {
  if (unit == IntegerUnit::kPairDots) return PairOperations<PairDotSum>(rounds, sink);
  return PairOperations<PairSum>(rounds, sink);
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(ReadAll);
HWY_EXPORT(FloatOperations);
HWY_EXPORT(IntegerOperations);

namespace {

// Two tiles of x by two of codes, in the unit's registers where it has some; elsewhere from the first cache.
double tile_operations(int64_t rounds, float* sink) {
  static constexpr int kTiles = kByteTilesAtOnce, kPanels = kByteTilePanels;
  alignas(64) std::byte x[kTiles * 2 * kByteTileBytes] = {};
  alignas(64) uint32_t codes[kPanels][kByteTileBytes / 4] = {};
  alignas(64) int32_t sums[kPanels * kTiles * 2 * kByteTileSums];
  ProcessorTiles::begin();
  ProcessorTiles::products<kTiles, kPanels>(x, {codes[0], codes[1]}, sums);
  for (int64_t round = 0; round < rounds; ++round) {
#if defined(__x86_64__)
    multiply_tiles<6, 4, 0, true>();
    multiply_tiles<7, 4, 1, true>();
    multiply_tiles<6, 5, 2, true>();
    multiply_tiles<7, 5, 3, true>();
    multiply_tiles<6, 4, 0, false>();
    multiply_tiles<7, 4, 1, false>();
    multiply_tiles<6, 5, 2, false>();
    multiply_tiles<7, 5, 3, false>();
#else
    ProcessorTiles::products<kTiles, kPanels>(x, {codes[0], codes[1]}, sums);
#endif
  }
  ProcessorTiles::end();
  *sink = static_cast<float>(sums[0]);
  return 2.0 * kTiles * kByteTileRows * kPanels * 16 * kGroupColumns * static_cast<double>(rounds);
}

}  // namespace

float read_all(const InstructionSet& set, const float* values, int64_t count) {
  return PENSTOCK_AT_TARGET(ReadAll, set.target)(values, count);
}
double float_operations(const InstructionSet& set, int64_t rounds, float* sum) {
  return PENSTOCK_AT_TARGET(FloatOperations, set.target)(rounds, sum);
}
double integer_operations(const InstructionSet& set, int64_t rounds, float* sum) {
  // As long as the others: a round of tiles takes some ten times as long as one of pairs on x86, and on Arm,
  // where it is as many products of vectors, a hundred times.
  constexpr int64_t kRoundsOfPairs = HWY_ARCH_X86 ? 10 : 100;
  if (set.unit == IntegerUnit::kByteTiles) return tile_operations(rounds / kRoundsOfPairs, sum);
  return PENSTOCK_AT_TARGET(IntegerOperations, dot_product_target(set.target))(set.unit, rounds,
                                                                               sum);
}

}  // namespace penstock
#endif  // HWY_ONCE
