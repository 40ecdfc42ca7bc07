// Experts read into free slots before anybody asks for them: a list, most wanted first.
//
// Nothing is pinned and nobody is evicted for it. An expert gets a slot only when its reads can be
// submitted at once, so nothing of the list ever queues before a demanded read; a stream that comes
// meanwhile shares those in flight.
//
// Threads  One.
// Memory   The list, and an entry for each expert being read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/expert_cache.h"
#include "store/expert_usage.h"
#include "store/slot_filler.h"

namespace penstock {

struct PreloadReport {
  uint64_t wanted = 0;   // that were not here and had a free slot, when the list came
  uint64_t experts = 0;  // read and checked
  uint64_t failed = 0;   // left out
  std::string failure;   // of the first of these
};

class Preloader {
 public:
  // cache and filler outlive it.
  Preloader(ExpertCache& cache, SlotFiller& filler) : cache_(cache), filler_(filler) {}

  void set_list(std::vector<ExpertId> experts);
  // Submits reads as far as the reader has room and a slot is free. Adds the slots it took.
  void start(std::vector<int>& taken);
  // Counts those whose reads have ended, before their slots can be given to others.
  void count_ended();
  bool is_reading(int slot) const;

  bool is_done() const {
    return reading_.empty() && (next_ == list_.size() || cache_.num_free() == 0);
  }
  const PreloadReport& report() const { return report_; }

 private:
  ExpertCache& cache_;
  SlotFiller& filler_;
  std::vector<ExpertId> list_;
  size_t next_ = 0;
  std::vector<int> reading_;  // slots
  PreloadReport report_;
};

}  // namespace penstock
