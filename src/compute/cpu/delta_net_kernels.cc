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

// All tokens of kWidth vectors of columns; the last vector has `columns` columns or more. kStreamed:
// the memory, whole cache lines of it, is written past the caches.
template <int kWidth, bool kStreamed = false>
HWY_INLINE void RunColumns(const DeltaRule& rule, int64_t start, int64_t columns) {
  const auto load = [columns](const float* place) HWY_ATTR {
    return kWidth > 1 ? hn::LoadU(Floats(), place) : LoadFirst(place, columns);
  };
  const auto store = [columns](FloatVec value, float* place) HWY_ATTR {
    kWidth > 1 ? hn::StoreU(value, Floats(), place) : StoreFirst(value, place, columns);
  };
  for (int64_t t = 0; t < rule.tokens; ++t) {
    const float* source = (t == 0 ? rule.before : rule.memory) + start;
    const float* q = rule.queries + t * rule.key_stride;
    const float* k = q + rule.key_dim;
    FloatVec from_key[kWidth], from_query[kWidth];
    PENSTOCK_UNROLL
    for (int v = 0; v < kWidth; ++v) from_key[v] = from_query[v] = hn::Zero(Floats());
    for (int64_t i = 0; i < rule.key_dim; ++i) {
      const float* row = source + i * rule.value_dim;
      const FloatVec key = hn::Set(Floats(), k[i]);
      const FloatVec query = hn::Set(Floats(), q[i]);
      PENSTOCK_UNROLL
      for (int v = 0; v < kWidth; ++v) {
        const FloatVec old = load(row + v * kLanes);
        from_key[v] = Fma(old, key, from_key[v]);
        from_query[v] = Fma(old, query, from_query[v]);
      }
    }
    const FloatVec decay = hn::Set(Floats(), rule.gates[2 * t]);
    const FloatVec beta = hn::Set(Floats(), rule.gates[2 * t + 1]);
    const FloatVec key_dot = hn::Set(Floats(), rule.key_dots[t * rule.key_dot_stride]);
    float* value = rule.values + t * rule.value_stride + start;
    FloatVec delta[kWidth];
    PENSTOCK_UNROLL
    for (int v = 0; v < kWidth; ++v) {
      const FloatVec surprise = hn::Sub(load(value + v * kLanes), hn::Mul(decay, from_key[v]));
      delta[v] = hn::Mul(beta, surprise);
      store(TwiceRounded(key_dot, delta[v], hn::Mul(decay, from_query[v])), value + v * kLanes);
    }
    for (int64_t i = 0; i < rule.key_dim; ++i) {
      const float* old = source + i * rule.value_dim;
      float* row = rule.memory + start + i * rule.value_dim;
      const FloatVec key = hn::Set(Floats(), k[i]);
      PENSTOCK_UNROLL
      for (int v = 0; v < kWidth; ++v) {
        const FloatVec kept = hn::Mul(decay, load(old + v * kLanes));
        const FloatVec updated = Fma(key, delta[v], kept);
        if constexpr (kStreamed) {
          hn::Stream(updated, Floats(), row + v * kLanes);
        } else {
          store(updated, row + v * kLanes);
        }
      }
    }
  }
}

// One token streams whole rows of the memory; many tokens keep a narrow strip of it in the nearest
// cache. The accumulators, two per vector of columns, have to fit into the registers.
void RunDeltaRule(const DeltaRule& rule) {
  constexpr int kStream = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON ? 8 : 4;
  constexpr int kStrip = 4;
  int64_t start = 0;
  if (rule.tokens == 1 && rule.is_streamed && rule.value_dim % (kStream * kLanes) == 0) {
    for (; start < rule.value_dim; start += kStream * kLanes) {
      RunColumns<kStream, true>(rule, start, kLanes);
    }
    hwy::FlushStream();  // before anybody else reads it
    return;
  }
  if (rule.tokens == 1) {
    for (; start + kStream * kLanes <= rule.value_dim; start += kStream * kLanes) {
      RunColumns<kStream>(rule, start, kLanes);
    }
  }
  for (; start + kStrip * kLanes <= rule.value_dim; start += kStrip * kLanes) {
    RunColumns<kStrip>(rule, start, kLanes);
  }
  for (; start < rule.value_dim; start += kLanes) {
    RunColumns<1>(rule, start, rule.value_dim - start);
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
