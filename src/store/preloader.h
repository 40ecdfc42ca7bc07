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

#include "store/expert_usage.h"
#include "store/slots.h"

namespace penstock {

struct PreloadReport {
  uint64_t wanted = 0;   // that were not here and had a free slot, when the list came
  uint64_t experts = 0;  // read and checked
  uint64_t failed = 0;   // left out
  std::string failure;   // of the first of these
};

class Preloader {
 public:
  explicit Preloader(Slots& slots) : slots_(slots) {}  // which outlive it

  // Experts with more parts than the reader takes at once are left out.
  void set_list(std::vector<ExpertId> experts);
  // Submits reads as far as the reader has room and a slot is free.
  void start();
  // Counts those whose reads have ended, before their slots can be given to others.
  void count_ended();

  bool is_done() const {
    return reading_.empty() && (next_ == list_.size() || slots_.cache().num_free() == 0);
  }
  const PreloadReport& report() const { return report_; }

 private:
  Slots& slots_;
  std::vector<ExpertId> list_;
  size_t next_ = 0;
  std::vector<int> reading_;  // slots
  PreloadReport report_;
};

}  // namespace penstock
