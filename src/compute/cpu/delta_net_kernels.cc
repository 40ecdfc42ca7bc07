#include "compute/cpu/delta_net.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/delta_net_kernels.cc"
#include "compute/cpu/target.h"
// clang-format off: foreach_target.h comes first
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "compute/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {

void Convolve(const float* taps, const float* const* inputs, int kernel, int64_t width,
              float* out) {
  for (int64_t i = 0; i < width; i += kLanes) {
    FloatVec sum = hn::Zero(Floats());
    for (int j = 0; j < kernel; ++j) {
      sum = TwiceRounded(LoadFirst(taps + j * width + i, width - i),
                         LoadFirst(inputs[j] + i, width - i), sum);
    }
    StoreFirst(Silu(Floats(), sum), out + i, width - i);
  }
}

void Normalise(float* x, int64_t width, float scale) {
  const FloatVec factor = hn::Set(Floats(), scale * exact_rsqrt(Dot(x, x, width) + 1e-6f));
  for (int64_t i = 0; i < width; i += kLanes) {
    StoreFirst(hn::Mul(LoadFirst(x + i, width - i), factor), x + i, width - i);
  }
}

float DotProduct(const float* x, const float* y, int64_t width) {
  return Dot(x, y, width);
}

// A strip of a head's memory: vectors of columns in all rows.
struct Strip {
  const float* data;
  int64_t stride;
};

// kWidth vectors of columns from `start` on. The last vector has `columns` columns or more. What a strip says
// to a key and a query, S^T k and S^T q, are arrays of kWidth vectors: a struct's own constructor would not be
// compiled for the target.
template <int kWidth>
class Columns {
 public:
  Columns(const DeltaRule& rule, int64_t start, int64_t columns)
      : rule_(rule), start_(start), columns_(columns) {}

  HWY_INLINE Strip before() const { return {rule_.before + start_, rule_.value_dim}; }

  // What the memory says to the key and the query of row t.
  HWY_INLINE void ask(const Strip& memory, int64_t t, FloatVec* of_key, FloatVec* of_query) const {
    const float* q = rule_.queries + t * rule_.key_stride;
    const float* k = q + rule_.key_dim;
    clear(of_key, of_query);
    for (int64_t i = 0; i < rule_.key_dim; ++i) {
      const FloatVec key = hn::Set(Floats(), k[i]);
      const FloatVec query = hn::Set(Floats(), q[i]);
      PENSTOCK_UNROLL
      for (int v = 0; v < kWidth; ++v) {
        const FloatVec old = load(memory.data + i * memory.stride + v * kLanes);
        of_key[v] = Fma(old, key, of_key[v]);
        of_query[v] = Fma(old, query, of_query[v]);
      }
    }
  }

  // From these what row t adds to the memory, and its output.
  HWY_INLINE void answer(int64_t t, const FloatVec* of_key, const FloatVec* of_query,
                         FloatVec* delta) const {
    const FloatVec decay = hn::Set(Floats(), rule_.gates[2 * t]);
    const FloatVec beta = hn::Set(Floats(), rule_.gates[2 * t + 1]);
    const FloatVec key_dot = hn::Set(Floats(), rule_.key_dots[t * rule_.key_dot_stride]);
    float* value = rule_.values + t * rule_.value_stride + start_;
    PENSTOCK_UNROLL
    for (int v = 0; v < kWidth; ++v) {
      const FloatVec surprise = hn::Sub(load(value + v * kLanes), hn::Mul(decay, of_key[v]));
      delta[v] = hn::Mul(beta, surprise);
      store(TwiceRounded(key_dot, delta[v], hn::Mul(decay, of_query[v])), value + v * kLanes);
    }
  }

  // The memory after row t, the last one.
  template <bool kStreamed>
  HWY_INLINE void finish(const Strip& memory, int64_t t, const FloatVec* delta) const {
    const float* k = rule_.queries + t * rule_.key_stride + rule_.key_dim;
    const FloatVec decay = hn::Set(Floats(), rule_.gates[2 * t]);
    for (int64_t i = 0; i < rule_.key_dim; ++i) {
      const FloatVec key = hn::Set(Floats(), k[i]);
      float* row = rule_.memory + start_ + i * rule_.value_dim;
      PENSTOCK_UNROLL
      for (int v = 0; v < kWidth; ++v) {
        const FloatVec kept = hn::Mul(decay, load(memory.data + i * memory.stride + v * kLanes));
        const FloatVec updated = Fma(key, delta[v], kept);
        if constexpr (kStreamed) {
          hn::Stream(updated, Floats(), row + v * kLanes);
        } else {
          store(updated, row + v * kLanes);
        }
      }
    }
  }

  // The memory after row t into the strip `next`, of whole vectors, and what it says to row t + 1.
  HWY_INLINE void step(const Strip& memory, int64_t t, const FloatVec* delta, float* next,
                       FloatVec* of_key, FloatVec* of_query) const {
    const float* k = rule_.queries + t * rule_.key_stride + rule_.key_dim;
    const float* next_q = rule_.queries + (t + 1) * rule_.key_stride;
    const float* next_k = next_q + rule_.key_dim;
    const FloatVec decay = hn::Set(Floats(), rule_.gates[2 * t]);
    clear(of_key, of_query);
    for (int64_t i = 0; i < rule_.key_dim; ++i) {
      const FloatVec key = hn::Set(Floats(), k[i]);
      const FloatVec next_key = hn::Set(Floats(), next_k[i]);
      const FloatVec next_query = hn::Set(Floats(), next_q[i]);
      PENSTOCK_UNROLL
      for (int v = 0; v < kWidth; ++v) {
        const FloatVec kept = hn::Mul(decay, load(memory.data + i * memory.stride + v * kLanes));
        const FloatVec updated = Fma(key, delta[v], kept);
        hn::StoreU(updated, Floats(), next + (i * kWidth + v) * kLanes);
        of_key[v] = Fma(updated, next_key, of_key[v]);
        of_query[v] = Fma(updated, next_query, of_query[v]);
      }
    }
  }

 private:
  HWY_INLINE FloatVec load(const float* place) const {
    return kWidth > 1 ? hn::LoadU(Floats(), place) : LoadFirst(place, columns_);
  }
  HWY_INLINE void store(FloatVec value, float* place) const {
    kWidth > 1 ? hn::StoreU(value, Floats(), place) : StoreFirst(value, place, columns_);
  }
  static HWY_INLINE void clear(FloatVec* of_key, FloatVec* of_query) {
    PENSTOCK_UNROLL
    for (int v = 0; v < kWidth; ++v) of_key[v] = of_query[v] = hn::Zero(Floats());
  }

  const DeltaRule& rule_;
  const int64_t start_, columns_;
};

// The only row. kStreamed: the memory, whole cache lines of it, is written past the caches.
template <int kWidth, bool kStreamed>
HWY_INLINE void RunRow(const DeltaRule& rule, int64_t start) {
  const Columns<kWidth> strip(rule, start, kWidth * kLanes);
  FloatVec of_key[kWidth], of_query[kWidth], delta[kWidth];
  strip.ask(strip.before(), 0, of_key, of_query);
  strip.answer(0, of_key, of_query, delta);
  strip.template finish<kStreamed>(strip.before(), 0, delta);
}

// Any number of rows. From the first to the last the strip lies in one piece: in the memory its rows
// are so far apart, by a power of two, that the nearest cache has places for few of them.
template <int kWidth>
HWY_INLINE void RunRows(const DeltaRule& rule, int64_t start, int64_t columns) {
  const Columns<kWidth> strip(rule, start, columns);
  FloatVec of_key[kWidth], of_query[kWidth], delta[kWidth];
  Strip memory = strip.before();
  strip.ask(memory, 0, of_key, of_query);
  for (int64_t t = 0; t + 1 < rule.tokens; ++t) {
    strip.answer(t, of_key, of_query, delta);
    strip.step(memory, t, delta, rule.strip, of_key, of_query);
    memory = {rule.strip, kWidth * kLanes};
  }
  strip.answer(rule.tokens - 1, of_key, of_query, delta);
  strip.template finish<false>(memory, rule.tokens - 1, delta);
}

// One row streams whole rows of the memory; many keep a narrow strip of it in the nearest cache.
// The accumulators, two per vector of columns, have to fit into the registers.
void RunDeltaRule(const DeltaRule& rule) {
  constexpr int kStream = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON ? 8 : 4;
  constexpr int kStrip = 4;
  static_assert(kStrip * kLanes <= kDeltaStripColumns);
  if (rule.tokens == 0) return;
  const bool is_single = rule.tokens == 1;
  int64_t start = 0;
  if (is_single && rule.is_streamed && rule.value_dim % (kStream * kLanes) == 0) {
    for (; start < rule.value_dim; start += kStream * kLanes) {
      RunRow<kStream, true>(rule, start);
    }
    hwy::FlushStream();  // before anybody else reads it
    return;
  }
  if (is_single) {
    for (; start + kStream * kLanes <= rule.value_dim; start += kStream * kLanes) {
      RunRow<kStream, false>(rule, start);
    }
  }
  for (; start + kStrip * kLanes <= rule.value_dim; start += kStrip * kLanes) {
    RunRows<kStrip>(rule, start, kLanes);
  }
  for (; start < rule.value_dim; start += kLanes) {
    RunRows<1>(rule, start, rule.value_dim - start);
  }
}

void GatedNorm(float* x, const float* weight, const float* gate, float eps, int64_t width) {
  const float mean = Dot(x, x, width) * (1.0f / static_cast<float>(width));
  const FloatVec scale = hn::Set(Floats(), exact_rsqrt(mean + eps));
  for (int64_t i = 0; i < width; i += kLanes) {
    const FloatVec scaled = hn::Mul(LoadFirst(x + i, width - i), scale);
    const FloatVec weighted = hn::Mul(scaled, LoadFirst(weight + i, width - i));
    StoreFirst(hn::Mul(weighted, Silu(Floats(), LoadFirst(gate + i, width - i))), x + i, width - i);
  }
}

const DeltaNetKernels* DeltaNetTable() {
  static constexpr DeltaNetKernels kKernels = {&Convolve, &Normalise, &DotProduct, &RunDeltaRule,
                                               &GatedNorm};
  return &kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock {
HWY_EXPORT(DeltaNetTable);
const DeltaNetKernels& delta_net_kernels(int64_t target) {
  return *PENSTOCK_AT_TARGET(DeltaNetTable, target)();
}
}  // namespace penstock
#endif
