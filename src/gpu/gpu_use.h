// Whether a device is still used. Several things may use one; whoever finds that it is lost says so,
// once for all of them, and none asks it again.
//
// Threads  one
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "base/result.h"

namespace penstock {

class GpuUse {
 public:
  // tell: called with a line for a person; may be empty.
  explicit GpuUse(std::function<void(const std::string&)> tell = {}) : tell_(std::move(tell)) {}

  bool is_lost() const { return is_lost_; }
  void lose(const Error& error) {
    if (is_lost_) return;
    is_lost_ = true;
    if (tell_) tell_("the GPU is not used any more: " + error.message);
  }

 private:
  std::function<void(const std::string&)> tell_;
  bool is_lost_ = false;
};

}  // namespace penstock
