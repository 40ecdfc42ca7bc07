// Everything one forward pass may touch, and where its time went.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iterator>
#include <span>
#include <stop_token>
#include <vector>

#include "compute/backend.h"
#include "experts/experts.h"
#include "model/expert_limits.h"
#include "model/scratch.h"

namespace penstock {

// Nanoseconds by named part. What a pass spends outside of these is reported as unaccounted.
struct StepTimes {
  int64_t mixer_ns = 0;        // attention and delta-net layers with their projections and norms
  int64_t router_ns = 0;       // norm, router, choice, submitting reads
  int64_t prefetch_ns = 0;     // guessing the next layer's experts: overlaps the reads
  int64_t shared_ns = 0;       // shared experts: overlaps the reads
  int64_t experts_ns = 0;      // routed experts
  int64_t expert_wait_ns = 0;  // waiting for the disk, and checking what came
  int64_t head_ns = 0;         // final norm and logits
  int64_t draft_ns = 0;        // the prediction block, with its experts and their reads
  int64_t sampling_ns = 0;     // choosing the token from the logits, and their hash

  int64_t accounted_ns() const;
  StepTimes& operator+=(const StepTimes& other);
};

// The parts by name: the one list for sums, JSON and tables, in the order in which they are shown.
struct StepPart {
  int64_t StepTimes::*ns;
  const char* key;    // in JSON
  const char* label;  // in tables
  bool is_always_shown = true;
};
inline constexpr StepPart kStepParts[] = {
    {&StepTimes::mixer_ns, "mixer", "mixers"},
    {&StepTimes::router_ns, "router", "routers"},
    {&StepTimes::prefetch_ns, "prefetch", "prefetch"},
    {&StepTimes::shared_ns, "shared_expert", "shared expert"},
    {&StepTimes::experts_ns, "experts", "experts"},
    {&StepTimes::expert_wait_ns, "expert_wait", "expert wait"},
    {&StepTimes::head_ns, "head", "head"},
    {&StepTimes::draft_ns, "draft", "drafts", false},
    {&StepTimes::sampling_ns, "sampling", "sampling", false},
};
static_assert(sizeof(StepTimes) == std::size(kStepParts) * sizeof(int64_t), "a part has no name");

inline int64_t StepTimes::accounted_ns() const {
  int64_t sum = 0;
  for (const StepPart& part : kStepParts) sum += this->*part.ns;
  return sum;
}

inline StepTimes& StepTimes::operator+=(const StepTimes& other) {
  for (const StepPart& part : kStepParts) this->*part.ns += other.*part.ns;
  return *this;
}

// Adds the time until it is destroyed, or until next(), to one of the parts.
class PartTimer {
 public:
  explicit PartTimer(int64_t& part) : part_(&part), start_(Clock::now()) {}
  PartTimer(const PartTimer&) = delete;
  PartTimer& operator=(const PartTimer&) = delete;
  ~PartTimer() { stop(); }

  void next(int64_t& part) {
    stop();
    part_ = &part;
  }

 private:
  using Clock = std::chrono::steady_clock;
  void stop() {
    const Clock::time_point now = Clock::now();
    *part_ += std::chrono::nanoseconds(now - start_).count();
    start_ = now;
  }

  int64_t* part_;
  Clock::time_point start_;
};

// Sees each layer's choice, rows of ids and weights, [tokens, top_k], and the rows it was made for,
// which the chosen experts will see: [tokens, H]. Both are gone when it returns.
using RouteObserver = std::function<void(int64_t layer, const Routing& routing, Rows inputs)>;

// Replaces each layer's choice: for benchmarks that drive the store with routing of their own. Ids
// of one token must be distinct; weights are kept.
using RouteOverride = std::function<void(int64_t layer, Routing& routing)>;

// What the routers chose, and how much of it is used; kept between layers so that the token loop
// allocates nothing once these have grown to the size of a chunk.
struct MoeScratch {
  ExpertLimits limits;
  Routing routing;
  Routing guess;  // what the next layer will choose, after its router on this input
};

// Called before each layer, when no expert is held.
using BetweenLayers = std::function<void()>;

struct Step {
  Backend& backend;
  Experts& experts;
  Scratch& scratch;
  MoeScratch& moe;
  StepTimes& times;
  std::stop_token stop;
  RouteObserver on_route;        // may be empty
  RouteOverride reroute;         // may be empty
  BetweenLayers between_layers;  // may be empty
};

}  // namespace penstock
