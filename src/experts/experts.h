// The routed experts of a model, wherever they are: rows go in, rows come out.
//
// The seam between a model, which knows which rows go through which expert, and those who hold the
// experts: memory and flash with the processors of this machine (experts/local_experts.h). The model
// knows neither disks nor slots, and whoever answers knows no model.
//
//   ExpertRun run = experts.begin(layer, routing, x);   // what is not at hand starts to come
//   ...                                                 // ops that need no routed expert
//   PENSTOCK_TRY(run.finish(out, stop));                // every row is there
//   ops.combine(out, routing, ...);                     // summed by the caller, in router order
//
// A row of `out` is written once, by one expert, from one row of x: it does not depend on which other
// rows were asked for, on who computed it or when, so neither does their sum.
//
// Shapes   n tokens, H hidden, K experts per token: x [n, H], out [n * K, H]
// Threads  the computing thread
// Memory   nothing is allocated once the lists have seen the largest call
// Errors   finish(): kIo, kCorrupt, kCancelled; the next begin() starts anew
#pragma once

#include <cstdint>
#include <stop_token>
#include <utility>

#include "base/result.h"
#include "compute/backend.h"

namespace penstock {

// Stands in a routing for a choice that is left out (model/expert_limits.h): nothing is computed for it,
// and its row of `out` is 0.
inline constexpr int32_t kNoExpert = -1;

// Stands for a choice that somebody else computes (experts/split_experts.h): its row of `out` is theirs
// to write.
inline constexpr int32_t kElsewhere = -2;

// Where the time of a run went.
struct ExpertTimes {
  int64_t compute_ns = 0;
  int64_t wait_ns = 0;  // for bytes to come, and comparing what came
};

class Experts;

// One layer's experts at work. One is alive at a time; without finish() what was begun is dropped.
class ExpertRun {
 public:
  ExpertRun(ExpertRun&& other) noexcept : experts_(std::exchange(other.experts_, nullptr)) {}
  ExpertRun& operator=(ExpertRun&&) = delete;
  ~ExpertRun();

  // out[t * K + k] = the k-th expert of token t, applied to x[t]. Once.
  Result<ExpertTimes> finish(Rows out, const std::stop_token& stop);

 private:
  friend class Experts;
  explicit ExpertRun(Experts* experts) : experts_(experts) {}
  Experts* experts_;
};

class Experts {
 public:
  virtual ~Experts() = default;

  // `routing`, which was chosen for the rows of x, and x stay as they are until the run has ended.
  ExpertRun begin(int layer, const Routing& routing, Rows x) {
    start(layer, routing, x);
    return ExpertRun(this);
  }

  // What a layer, another one than that of a run that is alive, will probably choose. Whether it is
  // worth the time to find out depends on what is at hand: ask first.
  virtual bool wants_foresight() const = 0;
  virtual void foresee(int layer, const Routing& guess) = 0;

 protected:
  friend class ExpertRun;
  virtual void start(int layer, const Routing& routing, Rows x) = 0;
  virtual Result<ExpertTimes> finish(Rows out, const std::stop_token& stop) = 0;
  virtual void end() = 0;  // after finish(), or in its place
};

inline ExpertRun::~ExpertRun() {
  if (experts_ != nullptr) experts_->end();
}

inline Result<ExpertTimes> ExpertRun::finish(Rows out, const std::stop_token& stop) {
  return experts_->finish(out, stop);
}

}  // namespace penstock
