// How sure a measured difference is: errors of means, paired differences, an exact test of pairs.
//
// Documents are the units for texts and items for shares. What compares two models does so document by
// document and item by item, which is far more exact than the difference of two means.
//
// Threads  plain functions; draws come from a generator of our own with a fixed seed, so that the same
//          numbers give the same interval everywhere
// Source   Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval);
//          McNemar 1947, in its exact form
#pragma once

#include <cstdint>
#include <span>

namespace penstock {

struct Share {
  int64_t good = 0, of = 0;

  void add(bool is_good) {
    good += is_good ? 1 : 0;
    ++of;
  }
  double value() const;
  // One standard error of (good + 1/2) / (of + 1), so that 0 and 100 % have one too.
  double error() const;
};

// One standard error of sum(numerators) / sum(denominators) when documents are drawn at random;
// infinite for fewer than two.
double ratio_error(std::span<const double> numerators, std::span<const double> denominators);

struct Interval {
  double low = 0, high = 0;

  bool holds(double value) const { return low <= value && value <= high; }
};

// In which sum(numerators) / sum(denominators) lies in 95 of 100 draws of as many documents.
Interval bootstrap_95(std::span<const double> numerators, std::span<const double> denominators);

// The probability of so uneven a split of the items that only one of two models got right, were both
// equally good: two-sided.
double mcnemar(int64_t only_first, int64_t only_second);

// The smallest value that at least `share` of all are not above. Reorders; 0 of nothing.
double quantile(std::span<float> values, double share);

}  // namespace penstock
