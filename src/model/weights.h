// WeightBinder: resident tensors by name, each with the shape that the model expects.
//
// Load time is check time: a missing tensor or a wrong shape is an Error that names the tensor and
// both shapes, and a tensor that nobody asked for is one too, so that a checkpoint with more in it
// than we understand does not answer as if it were understood.
//
// Memory   owns nothing: views into the resident memory of the model
// Errors   kCorrupt
#pragma once

#include <set>
#include <span>
#include <string>

#include "base/result.h"
#include "compute/panel.h"
#include "format/container.h"

namespace penstock {

class WeightBinder {
 public:
  WeightBinder(const Container& container, std::span<const std::byte> resident)
      : container_(container), resident_(resident) {}

  bool has(const std::string& name) const { return container_.find(name) != nullptr; }
  Result<Matrix> matrix(const std::string& name, int64_t rows, int64_t columns);
  Result<const float*> vector(const std::string& name, int64_t rows, int64_t columns);
  Result<const float*> vector(const std::string& name, int64_t columns) {
    return vector(name, 1, columns);
  }

  // An error naming the first tensor that was never asked for.
  Result<void> expect_all_bound() const;

 private:
  Result<const ResidentTensor*> find(const std::string& name, bool panels, int64_t rows,
                                     int64_t columns);

  const Container& container_;
  std::span<const std::byte> resident_;
  std::set<std::string> bound_;
};

}  // namespace penstock
