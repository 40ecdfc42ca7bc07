// Counts of durations by size, as Prometheus wants them.
//
// Buckets go from a tenth of a millisecond, a read of a fast disk, to 600 seconds: on a streamed model a
// prompt may take minutes, and with shorter ones all would be in the last.
//
// Threads  a value
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock {

class Histogram {
 public:
  static constexpr std::array<double, 21> kBounds = {
      0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
      0.5,    1,       2.5,    5,     10,     30,    60,   120,   300,  600};

  void add(double seconds) {
    size_t bucket = 0;
    while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
    ++counts_[bucket];
    sum_ += seconds;
  }

  Histogram& operator+=(const Histogram& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    sum_ += other.sum_;
    return *this;
  }

  // Of bucket i alone; the last one is beyond all bounds.
  uint64_t count(size_t bucket) const { return counts_[bucket]; }
  double sum() const { return sum_; }

 private:
  std::array<uint64_t, kBounds.size() + 1> counts_ = {};
  double sum_ = 0;
};

}  // namespace penstock
