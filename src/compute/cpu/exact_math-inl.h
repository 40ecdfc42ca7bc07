// The functions of compute/exact_math.h for vectors: the same operations in the same order.

#if defined(PENSTOCK_COMPUTE_CPU_EXACT_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PENSTOCK_COMPUTE_CPU_EXACT_MATH_INL_H_
#undef PENSTOCK_COMPUTE_CPU_EXACT_MATH_INL_H_
#else
#define PENSTOCK_COMPUTE_CPU_EXACT_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

#include "compute/exact_math.h"

HWY_BEFORE_NAMESPACE();
namespace penstock {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// x y + z with one rounding, lane by lane where the instruction set has no such thing.
template <class V>
HWY_INLINE V Fma(V x, V y, V z) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(x, y, z);
#elif HWY_TARGET == HWY_SCALAR
  return V(exact_fma(x.raw, y.raw, z.raw));
#else
  const hn::DFromV<V> d;
  constexpr size_t kCount = hn::MaxLanes(d);
  HWY_ALIGN float a[kCount], b[kCount], c[kCount];
  hn::Store(x, d, a);
  hn::Store(y, d, b);
  hn::Store(z, d, c);
  for (size_t i = 0; i < kCount; ++i) c[i] = exact_fma(a[i], b[i], c[i]);
  return hn::Load(d, c);
#endif
}

// x y + z, rounded twice. Compilers may not fuse it (-ffp-contract=off).
template <class V>
HWY_INLINE V TwiceRounded(V x, V y, V z) {
  return hn::Add(hn::Mul(x, y), z);
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp(D d, V x) {
  const hn::RebindToUnsigned<D> words;
  const V round = hn::Set(d, exact::kRound);
  const V shifted = TwiceRounded(x, hn::Set(d, exact::kLog2E), round);
  const V exponent = hn::Sub(shifted, round);
  const V r = hn::Sub(hn::Sub(x, hn::Mul(exponent, hn::Set(d, exact::kLn2High))),
                      hn::Mul(exponent, hn::Set(d, exact::kLn2Low)));
  V tail = TwiceRounded(hn::Set(d, exact::kExp6), r, hn::Set(d, exact::kExp5));
  tail = TwiceRounded(tail, r, hn::Set(d, exact::kExp4));
  tail = TwiceRounded(tail, r, hn::Set(d, exact::kExp3));
  tail = TwiceRounded(tail, r, hn::Set(d, exact::kExp2));
  const V mantissa = hn::Add(hn::Set(d, 1.0f), hn::Add(r, hn::Mul(hn::Mul(r, r), tail)));
  const V power = hn::BitCast(
      d, hn::Add(hn::ShiftLeft<23>(hn::BitCast(words, shifted)), hn::Set(words, 0x3f800000u)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, exact::kSmallestExp)), hn::Mul(mantissa, power));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V Reciprocal(D d, V x) {
  const hn::RebindToUnsigned<D> words;
  const V one = hn::Set(d, 1.0f);
  V y = hn::BitCast(d, hn::Sub(hn::Set(words, exact::kReciprocalSeed), hn::BitCast(words, x)));
  for (int i = 0; i < 3; ++i) y = hn::Add(y, hn::Mul(y, hn::Sub(one, hn::Mul(x, y))));
  return y;
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V ReciprocalRoot(D d, V x) {
  const hn::RebindToUnsigned<D> words;
  const V one_half = hn::Set(d, 0.5f);
  const V half = hn::Mul(one_half, x);
  V y = hn::BitCast(
      d, hn::Sub(hn::Set(words, exact::kRsqrtSeed), hn::ShiftRight<1>(hn::BitCast(words, x))));
  for (int i = 0; i < 3; ++i) {
    y = hn::Add(y, hn::Mul(y, hn::Sub(one_half, hn::Mul(hn::Mul(half, y), y))));
  }
  return y;
}

// x y, and 0 where that is smaller than 2^-100.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Product(D d, V x, V y) {
  const V product = hn::Mul(x, y);
  const auto is_small = hn::Lt(hn::Abs(product), hn::Set(d, exact::kSmallestProduct));
  return hn::IfThenZeroElse(is_small, product);
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V Sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V small = Exp(d, hn::Neg(hn::Abs(x)));
  const V numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), small, one);
  return hn::Mul(numerator, Reciprocal(d, hn::Add(one, small)));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V Silu(D d, V x) {
  return hn::Mul(x, Sigmoid(d, x));
}

}  // namespace HWY_NAMESPACE
}  // namespace penstock
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
