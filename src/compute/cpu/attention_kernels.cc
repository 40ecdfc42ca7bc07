#include "compute/cpu/attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/attention_kernels.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

// Accumulators that fit into the registers beside their operands.
inline constexpr int kAccumulators = HWY_TARGET == HWY_NEON || HWY_TARGET == HWY_AVX3 ? 16 : 8;

// Query rows in lanes, in one vector or in several.
template <int kRows>
struct QueryLanes {
  using D = hn::CappedTag<float, kRows>;
  using V = hn::Vec<D>;
  static constexpr int kWidth = static_cast<int>(hn::MaxLanes(D()));
  static constexpr int kParts = kRows / kWidth;
  // Positions side by side: their chains of fmas hide the latency of one another.
  static constexpr int kSideBySide = std::clamp(kAccumulators / kParts, 1, 8);

  // The scores of kCount positions, `distance` apart.
  template <int kCount>
  static HWY_INLINE void Scores(const AttentionSegment& s, int64_t position, int64_t distance) {
    V sums[kCount][kParts];
    PENSTOCK_UNROLL
    for (int p = 0; p < kCount; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kParts; ++v) sums[p][v] = hn::Zero(D());
    }
    const float* keys = s.keys + position * s.head_dim;
    for (int64_t i = 0; i < s.head_dim; ++i) {
      V queries[kParts];
      PENSTOCK_UNROLL
      for (int v = 0; v < kParts; ++v) {
        queries[v] = hn::Load(D(), s.queries + i * kRows + v * kWidth);
      }
      PENSTOCK_UNROLL
      for (int p = 0; p < kCount; ++p) {
        const V key = hn::Set(D(), keys[p * distance * s.head_dim + i]);
        PENSTOCK_UNROLL
        for (int v = 0; v < kParts; ++v) sums[p][v] = Fma(queries[v], key, sums[p][v]);
      }
    }
    PENSTOCK_UNROLL
    for (int p = 0; p < kCount; ++p) {
      PENSTOCK_UNROLL
      for (int v = 0; v < kParts; ++v) {
        hn::Store(sums[p][v], D(), s.scores + (position + p * distance) * kRows + v * kWidth);
      }
    }
  }

  // Scores become weights exp(score - maximum); those of hidden positions are zero, and those below e^-27
  // (compute/exact_math.h), all of which together are a thirtieth of half of the sum's last bit.
  static HWY_INLINE void Weights(const AttentionSegment& s) {
    const hn::RebindToSigned<D> ints;
    const V nothing = hn::Set(D(), kNothingSeen);
    for (int v = 0; v < kParts; ++v) {
      const float* scores = s.scores + v * kWidth;
      float* weights = s.weights + v * kWidth;
      const V limit = hn::ConvertTo(D(), hn::LoadU(ints, s.limits + v * kWidth));
      V maximum = nothing;
      for (int64_t p = 0; p < s.positions; ++p) {
        const auto seen = hn::Lt(hn::Set(D(), static_cast<float>(p)), limit);
        const V score = hn::IfThenElse(seen, hn::Load(D(), scores + p * kRows), nothing);
        maximum = hn::Max(maximum, score);
      }
      V sum = hn::Zero(D());
      for (int64_t p = 0; p < s.positions; ++p) {
        const auto seen = hn::Lt(hn::Set(D(), static_cast<float>(p)), limit);
        const V difference = hn::Sub(hn::Load(D(), scores + p * kRows), maximum);
        const auto counts = hn::Ge(difference, hn::Set(D(), exact::kSmallestDifference));
        const V weight = hn::IfThenElseZero(hn::And(seen, counts), Exp(D(), difference));
        sum = hn::Add(sum, weight);
        hn::Store(weight, D(), weights + p * kRows);
      }
      hn::StoreU(maximum, D(), s.maxima + v * kWidth);
      hn::StoreU(sum, D(), s.sums + v * kWidth);
    }
  }

  static HWY_INLINE void AllScores(const AttentionSegment& s) {
    const int64_t distance = s.positions / kSideBySide;
    for (int64_t p = 0; p < distance; ++p) Scores<kSideBySide>(s, p, distance);
    for (int64_t p = kSideBySide * distance; p < s.positions; ++p) Scores<1>(s, p, 0);
  }
};

// mixed[row, i ...] += sum_p weight[p, row] * value[p, i ...] over the positions p = first,
// first + 63, ..., for kRows rows and kWidth vectors of components.
template <int kRows, int kWidth>
HWY_INLINE void MixStrip(const AttentionSegment& s, int row, int64_t i, int64_t first) {
  const int64_t count = kWidth > 1 ? kLanes : s.end_component - i;
  FloatVec sums[kRows][kWidth];
  float* mixed = s.mixed + row * s.head_dim + i;
  PENSTOCK_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PENSTOCK_UNROLL
    for (int v = 0; v < kWidth; ++v) {
      sums[r][v] = LoadFirst(mixed + r * s.head_dim + v * kLanes, count);
    }
  }
  for (int64_t p = first; p < s.positions; p += kStreamPositions) {
    const float* value = s.values + p * s.head_dim + i;
    const float* weights = s.weights + p * s.lanes + row;
    FloatVec values[kWidth];
    PENSTOCK_UNROLL
    for (int v = 0; v < kWidth; ++v) values[v] = LoadFirst(value + v * kLanes, count);
    PENSTOCK_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const FloatVec weight = hn::Set(Floats(), weights[r]);
      PENSTOCK_UNROLL
      for (int v = 0; v < kWidth; ++v) sums[r][v] = Fma(values[v], weight, sums[r][v]);
    }
  }
  PENSTOCK_UNROLL
  for (int r = 0; r < kRows; ++r) {
    PENSTOCK_UNROLL
    for (int v = 0; v < kWidth; ++v) {
      StoreFirst(sums[r][v], mixed + r * s.head_dim + v * kLanes, count);
    }
  }
}

void Mix(const AttentionSegment& s) {
  constexpr int kRows = HWY_TARGET == HWY_AVX3 ? 8 : 4;
  for (int row = 0; row < s.lanes; ++row) {
    float* mixed = s.mixed + row * s.head_dim;
    std::fill(mixed + s.first_component, mixed + s.end_component, 0.0f);
  }
  for (int64_t first = 0; first < std::min(kStreamPositions, s.positions); ++first) {
    int64_t i = s.first_component;
    for (; i + 2 * kLanes <= s.end_component; i += 2 * kLanes) {
      for (int row = 0; row < s.lanes; row += kRows) MixStrip<kRows, 2>(s, row, i, first);
    }
    for (; i < s.end_component; i += kLanes) {
      for (int row = 0; row < s.lanes; row += kRows) MixStrip<kRows, 1>(s, row, i, first);
    }
  }
}

void MakeScores(const AttentionSegment& s) {
  if (s.lanes == 8) {
    QueryLanes<8>::AllScores(s);
  } else {
    QueryLanes<16>::AllScores(s);
  }
}

void WeighAndMix(const AttentionSegment& s) {
  if (s.lanes == 8) {
    QueryLanes<8>::Weights(s);
  } else {
    QueryLanes<16>::Weights(s);
  }
  Mix(s);
}

// Rows of kv_codes.h to floats: out[p] = code * scale, one rounding each.
void Decode(const float* rows, int64_t positions, int64_t head_dim, float* out) {
  const hn::Rebind<int8_t, Floats> bytes;
  const int64_t groups = kv_groups(head_dim);
  const int64_t row_floats = kv_row_floats(KvForm::kCodes8, head_dim);
  for (int64_t p = 0; p < positions; ++p, rows += row_floats, out += head_dim) {
    const auto* codes = reinterpret_cast<const int8_t*>(rows + groups);
    for (int64_t group = 0; group < groups; ++group) {
      const FloatVec scale = hn::Set(Floats(), rows[group]);
      const int64_t end = std::min((group + 1) * kKvGroup, head_dim);
      int64_t i = group * kKvGroup;
      for (; i + kLanes <= end; i += kLanes) {
        const auto whole = hn::PromoteTo(Ints(), hn::LoadU(bytes, codes + i));
        hn::StoreU(hn::Mul(hn::ConvertTo(Floats(), whole), scale), Floats(), out + i);
      }
      for (; i < end; ++i) out[i] = static_cast<float>(codes[i]) * rows[group];
    }
  }
}

void RunSegment(const AttentionSegment& segment) {
  AttentionSegment s = segment;
  if (s.decoded != nullptr) {
    Decode(segment.keys, s.positions, s.head_dim, s.decoded);
    s.keys = s.decoded;
  }
  MakeScores(s);
  if (s.decoded != nullptr) {
    Decode(segment.values, s.positions, s.head_dim, s.decoded);
    s.values = s.decoded;
  }
  WeighAndMix(s);
}

void Join(float m, float l, const float* o, int64_t head_dim, float* maximum, float* sum,
          float* mixed) {
  const float both = m > *maximum ? m : *maximum;
  const FloatVec old_part = hn::Set(Floats(), exact_exp(*maximum - both));
  const FloatVec new_part = hn::Set(Floats(), exact_exp(m - both));
  for (int64_t i = 0; i < head_dim; i += kLanes) {
    const FloatVec old = Product(Floats(), LoadFirst(mixed + i, head_dim - i), old_part);
    const FloatVec added = Product(Floats(), LoadFirst(o + i, head_dim - i), new_part);
    StoreFirst(hn::Add(added, old), mixed + i, head_dim - i);
  }
  *sum = *sum * hn::GetLane(old_part) + l * hn::GetLane(new_part);
  *maximum = both;
}

void Finish(const float* mixed, float sum, const float* gate, int64_t head_dim, float* out) {
  const FloatVec whole = hn::Set(Floats(), exact_reciprocal(sum));
  for (int64_t i = 0; i < head_dim; i += kLanes) {
    const FloatVec mean = hn::Mul(LoadFirst(mixed + i, head_dim - i), whole);
    const FloatVec open = gate == nullptr ? hn::Set(Floats(), 1.0f)
                                          : Sigmoid(Floats(), LoadFirst(gate + i, head_dim - i));
    StoreFirst(Product(Floats(), mean, open), out + i, head_dim - i);
  }
}

const AttentionKernels* AttentionTable() {
  static constexpr AttentionKernels kKernels = {&RunSegment, &MakeScores, &WeighAndMix, &Join,
                                                &Finish};
  return &kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(AttentionTable);
const AttentionKernels& attention_kernels(int64_t target) {
  return *PENSTOCK_AT_TARGET(AttentionTable, target)();
}
}  // namespace penstock
#endif
