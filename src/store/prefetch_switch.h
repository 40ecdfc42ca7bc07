// Whether reading ahead pays: off by itself when too few of the experts read ahead are asked for,
// and tried again now and then. Pure: no clock but the steps that it is told of.
//
// A wrong guess costs disk time that may be a demanded expert's, the slot of a cached one, and the
// time to guess. Follows the share of right guesses as an exponential average over layers. A trial
// starts the average anew at the threshold, so that its own layers alone decide.
#pragma once

namespace penstock {

class PrefetchSwitch {
 public:
  static constexpr float kShareMin = 0.35f;  // of the experts read ahead, to go on
  static constexpr int kStepsOff = 62;       // between trials
  static constexpr int kStepsTried = 2;

  explicit PrefetchSwitch(float share_min = kShareMin) : share_min_(share_min) {}

  bool is_on() const { return share_ >= share_min_ || trial_steps_left_ > 0; }
  float share() const { return share_; }

  // A layer ran for which `prefetched` experts, 1 or more, had been read ahead; it used so many.
  void add_layer(int prefetched, int used) {
    share_ += kWeight * (static_cast<float>(used) / static_cast<float>(prefetched) - share_);
  }

  // A decoded token or a chunk of a prompt is over.
  void end_step() {
    if (trial_steps_left_ > 0) {
      --trial_steps_left_;
    } else if (is_on()) {
      steps_off_ = 0;
    } else if (++steps_off_ >= kStepsOff) {
      steps_off_ = 0;
      share_ = share_min_;
      trial_steps_left_ = kStepsTried;
    }
  }

 private:
  static constexpr float kWeight = 1.0f / 64;  // of the latest layer

  float share_min_;
  float share_ = 1.0f;
  int steps_off_ = 0;
  int trial_steps_left_ = 0;
};

}  // namespace penstock
