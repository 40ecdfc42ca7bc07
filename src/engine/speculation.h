// Whether drafting pays: steps with and without a drafted token are timed, and the faster kind per
// delivered token goes on. Pure: no clock but the steps that it is told of.
//
// Evaluating a draft beside the token before it reads weights once for two tokens, but other experts
// for each: it pays where weights come from memory and drafts are often right, and costs where
// experts come from the disk. Nobody knows that beforehand, so both are measured, the other kind
// again now and then. What is delivered does not depend on it.
//
// Source  docs/model.md, "Prediction block"
#pragma once

#include <algorithm>
#include <cstdint>

namespace penstock {

enum class Speculation : uint8_t { kOff, kAuto, kOn };

class SpeculationSwitch {
 public:
  static constexpr int kTrial = 6;      // steps of a kind, to know it
  static constexpr int kBetween = 120;  // steps between two trials of the slower kind

  explicit SpeculationSwitch(Speculation mode = Speculation::kOff) : mode_(mode) {}

  // Whether the next step should draft.
  bool wants_draft() const {
    if (mode_ != Speculation::kAuto) return mode_ == Speculation::kOn;
    return trial_left_ > 0 ? trial_drafts_ : drafts_pay_;
  }

  // A step took `ns` for 1 token, or for 1 or 2 with a draft.
  void add_step(bool drafted, int64_t ns, int64_t tokens) {
    Kind& kind = drafted ? drafted_ : plain_;
    kind.add(static_cast<double>(ns), static_cast<double>(tokens));
    if (drafted != trial_drafts_ || trial_left_ == 0) {
      if (trial_left_ == 0 && ++steps_ >= kBetween) start_trial(!drafts_pay_);
      return;
    }
    if (--trial_left_ > 0) return;
    if (plain_.tokens > 0 && drafted_.tokens > 0) {
      drafts_pay_ = drafted_.ns_per_token() < kMargin * plain_.ns_per_token();
    }
    if (drafted_.tokens == 0) start_trial(true);
  }

  bool drafts_pay() const { return drafts_pay_; }

 private:
  static constexpr double kMargin = 0.98;  // a gain below that is not worth the noise
  static constexpr double kMemory = 0.95;  // weight of the past at every step

  struct Kind {
    double ns = 0, tokens = 0;
    void add(double step_ns, double step_tokens) {
      ns = kMemory * ns + step_ns;
      tokens = kMemory * tokens + step_tokens;
    }
    double ns_per_token() const { return ns / tokens; }
  };

  void start_trial(bool drafts) {
    trial_drafts_ = drafts;
    trial_left_ = kTrial;
    steps_ = 0;
    (drafts ? drafted_ : plain_) = {};  // conditions may have changed
  }

  Speculation mode_;
  Kind plain_, drafted_;
  bool drafts_pay_ = false;
  bool trial_drafts_ = false;  // what the running trial does; it begins with plain steps
  int trial_left_ = kTrial;
  int steps_ = 0;
};

}  // namespace penstock
