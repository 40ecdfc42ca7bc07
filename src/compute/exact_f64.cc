#include "compute/exact_f64.h"

#include <bit>
#include <cstdint>
#include <limits>

#include "base/check.h"

namespace penstock {
namespace {

constexpr double kRoundDouble =
    0x1.8p52;  // x + kRoundDouble - kRoundDouble: the nearest even integer

// c[0] + x (c[1] + x (c[2] + ...))
template <int kCount>
double polynomial(const double (&c)[kCount], double x) {
  double sum = c[kCount - 1];
  for (int i = kCount - 2; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

// 1 / factorial, of every `step`-th number from `first` on, with alternating signs if asked for.
template <int kCount>
struct Taylor {
  double c[kCount];
  constexpr Taylor(int first, int step, bool alternates) : c() {
    double factorial = 1;  // exact up to 18!
    int n = 1;
    for (int i = 0; i < kCount; ++i) {
      for (; n <= first + i * step; ++n) factorial *= n;
      c[i] = (alternates && i % 2 == 1 ? -1.0 : 1.0) / factorial;
    }
  }
};

}  // namespace

double exact_exp64(double x) {
  if (x < -700) return 0;
  if (!(x <= 700)) return x + std::numeric_limits<double>::infinity();  // or no number
  constexpr Taylor<14> kSeries(0, 1, false);
  const double shifted = x * 0x1.71547652b82fep+0 + kRoundDouble;
  const double exponent = shifted - kRoundDouble;
  const double r = (x - exponent * 0x1.62e42feep-1) - exponent * 0x1.a39ef35793c76p-33;
  const uint64_t power = (std::bit_cast<uint64_t>(shifted) << 52) + 0x3ff0000000000000u;
  return polynomial(kSeries.c, r) * std::bit_cast<double>(power);
}

double exact_log64(double x) {
  const auto bits = std::bit_cast<uint64_t>(x);
  if (x == 0) return -std::numeric_limits<double>::infinity();
  if (!(x > 0)) return std::numeric_limits<double>::quiet_NaN();
  if (bits >= 0x7ff0000000000000u) return x;
  // x = 2^exponent * m with m from sqrt(1/2) to sqrt(2)
  constexpr uint64_t kRootOfHalf = 0x3fe6a09e667f3bcdu;
  const uint64_t exponent = (bits - kRootOfHalf) >> 52;
  const double m = std::bit_cast<double>(bits - (exponent << 52));
  const auto scale = static_cast<double>(static_cast<int64_t>(exponent << 52) >> 52);
  const double s = (m - 1) / (m + 1);  // log m = 2 atanh(s)
  const double z = s * s;
  double sum = 1.0 / 27;
  for (int n = 25; n >= 3; n -= 2) sum = sum * z + 1.0 / n;
  const double log_m = 2 * (s + s * (z * sum));
  return scale * 0x1.62e42feep-1 + (scale * 0x1.a39ef35793c76p-33 + log_m);
}

double exact_power64(double base, double exponent) {
  return exact_exp64(exponent * exact_log64(base));
}

SineCosine exact_sine_cosine64(double angle) {
  PENSTOCK_CHECK(angle >= -0x1p31 && angle <= 0x1p31);
  constexpr Taylor<8> kSine(1, 2, true);
  constexpr Taylor<9> kCosine(0, 2, true);
  const double shifted = angle * 0x1.45f306dc9c883p-1 + kRoundDouble;  // 2 / pi
  const double quarters = shifted - kRoundDouble;
  // Parts of 22 bits: their products with `quarters`, below 2^31, are exact.
  double r = angle - quarters * 0x1.921fbp+0;
  r = r - quarters * 0x1.5110bp-22;
  r = r - quarters * 0x1.184698p-44;
  r = r - quarters * 0x1.3198a2e037073p-69;
  const double z = r * r;
  const double sine = r * polynomial(kSine.c, z);
  const double cosine = polynomial(kCosine.c, z);
  switch (std::bit_cast<uint64_t>(shifted) & 3) {
    case 0: return {sine, cosine};
    case 1: return {cosine, -sine};
    case 2: return {-sine, -cosine};
    default: return {-cosine, sine};
  }
}

}  // namespace penstock
