// Which bytes of a file take room on a simulated disk: those that were written or reserved. What lies
// between them are holes, which take none.
//
// Threads  one at a time
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>

namespace penstock {

class Extents {
 public:
  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const auto& [begin, end] : ends_) sum += end - begin;
    return sum;
  }

  // How many bytes of [begin, end) are not among them yet.
  uint64_t missing(uint64_t begin, uint64_t end) const {
    uint64_t missing = end > begin ? end - begin : 0;
    for (const auto& [from, to] : ends_) {
      const uint64_t low = std::max(from, begin), high = std::min(to, end);
      if (low < high) missing -= high - low;
    }
    return missing;
  }

  void add(uint64_t begin, uint64_t end) {
    if (begin >= end) return;
    auto at = ends_.upper_bound(begin);
    if (at != ends_.begin() && std::prev(at)->second >= begin) --at;
    while (at != ends_.end() && at->first <= end) {
      begin = std::min(begin, at->first);
      end = std::max(end, at->second);
      at = ends_.erase(at);
    }
    ends_[begin] = end;
  }

  // The file ends there.
  void cut(uint64_t end) {
    ends_.erase(ends_.lower_bound(end), ends_.end());
    if (!ends_.empty()) {
      uint64_t& last = std::prev(ends_.end())->second;
      last = std::min(last, end);
    }
  }

 private:
  std::map<uint64_t, uint64_t> ends_;  // by where they begin; apart from each other
};

}  // namespace penstock
