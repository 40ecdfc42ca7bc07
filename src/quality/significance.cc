#include "quality/significance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/check.h"

namespace penstock {
namespace {

constexpr int kDraws = 10'000;
constexpr uint64_t kSeed = 20261128;

// splitmix64.
uint64_t next_random(uint64_t& state) {
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double sum_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

double Share::value() const {
  return of == 0 ? 0 : static_cast<double>(good) / static_cast<double>(of);
}

double Share::error() const {
  if (of == 0) return 0;
  const double smoothed = (static_cast<double>(good) + 0.5) / (static_cast<double>(of) + 1);
  return std::sqrt(smoothed * (1 - smoothed) / static_cast<double>(of));
}

double ratio_error(std::span<const double> numerators, std::span<const double> denominators) {
  PENSTOCK_CHECK(numerators.size() == denominators.size());
  const auto count = static_cast<double>(numerators.size());
  if (count < 2) return std::numeric_limits<double>::infinity();
  const double all = sum_of(denominators);
  const double ratio = sum_of(numerators) / all;
  double squares = 0;
  for (size_t i = 0; i < numerators.size(); ++i) {
    const double off = numerators[i] - ratio * denominators[i];
    squares += off * off;
  }
  return std::sqrt(count / (count - 1) * squares) / all;
}

Interval bootstrap_95(std::span<const double> numerators, std::span<const double> denominators) {
  PENSTOCK_CHECK(numerators.size() == denominators.size() && !numerators.empty());
  std::vector<double> ratios(kDraws);
  uint64_t random = kSeed;
  for (double& ratio : ratios) {
    double above = 0, below = 0;
    for (size_t i = 0; i < numerators.size(); ++i) {
      const size_t drawn = next_random(random) % numerators.size();
      above += numerators[drawn];
      below += denominators[drawn];
    }
    ratio = above / below;
  }
  std::ranges::sort(ratios);
  return {ratios[kDraws / 40], ratios[kDraws - 1 - kDraws / 40]};
}

double mcnemar(int64_t only_first, int64_t only_second) {
  const auto n = static_cast<double>(only_first + only_second);
  double tail = 0;
  for (int64_t k = 0; k <= std::min(only_first, only_second); ++k) {
    const auto x = static_cast<double>(k);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(x + 1) - std::lgamma(n - x + 1) -
                     n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

double quantile(std::span<float> values, double share) {
  if (values.empty()) return 0;
  const auto count = static_cast<double>(values.size());
  const auto rank = static_cast<size_t>(std::clamp(std::ceil(share * count), 1.0, count));
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(rank - 1);
  std::nth_element(values.begin(), at, values.end());
  return static_cast<double>(*at);
}

}  // namespace penstock
