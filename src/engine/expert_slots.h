// All expert slots of an engine, counted together: those of the model and those of its copy in fewer
// bits, where there is one. When memory runs short both give back, and later both take again, in the
// proportion in which they were planned; neither below its floor before the other one has come to its own.
//
// Threads  the computing thread, no stream alive; make_present() any
// Memory   a few numbers; the stores outlive it
// Errors   make_present(): kOutOfMemory; resize() says by its number what could be had
#pragma once

#include <cstdint>
#include <vector>

#include "engine/memory_plan.h"
#include "engine/memory_watch.h"
#include "store/expert_store.h"

namespace penstock {

class ExpertSlots {
 public:
  // copy: nullptr where there is none. The slot's bytes are the request's.
  ExpertSlots(const PlanRequest& request, const MemoryPlan& plan, ExpertStore& model,
              ExpertStore* copy);

  int num_slots() const;
  // So many of all, at least one of each store; how many there are now (ExpertStore::resize).
  int resize(int num_slots);
  SlotLimits limits() const;          // of all; a slot has their mean size
  int of_model(int num_slots) const;  // of so many of all

  // Whether these may be called: there is no copy.
  bool may_come_later() const { return parts_.size() == 1; }
  Result<void> make_present(int begin, int end);  // ExpertStore::make_present(); any thread
  void add_present(int num_slots);
  struct GivenBack {
    uint64_t slots = 0, bytes = 0;
  };
  GivenBack given_back() const;  // in all
  void reset_stats();

 private:
  struct Part {
    ExpertStore* store;
    SlotLimits limits;
  };
  std::vector<Part> parts_;  // the model's first
};

}  // namespace penstock
