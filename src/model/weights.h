// WeightBinder: resident tensors by name, each with the shape that the family's list gives it.
//
// Load time is check time: a missing tensor or a wrong shape is an Error that names the tensor and
// both shapes, and a tensor that nobody asked for is one too, so that a checkpoint with more in it
// than we understand does not answer as if it were understood.
//
// Memory   owns nothing: views into the resident memory of the model; list and weights outlive it
// Errors   kCorrupt
#pragma once

#include <set>
#include <span>
#include <string>

#include "base/result.h"
#include "compute/panel.h"
#include "model/resident_weights.h"
#include "model/tensors.h"

namespace penstock {

class WeightBinder {
 public:
  WeightBinder(const TensorList& list, const ResidentWeights& weights)
      : list_(list), weights_(weights) {}

  // Whether the model has such a tensor; only those may be asked for.
  bool is_listed(const std::string& name) const { return list_.find(name) != nullptr; }
  Result<Matrix> matrix(const std::string& name);
  Result<std::span<const float>> vector(const std::string& name);  // all its rows

  // An error naming the first tensor that was never asked for.
  Result<void> expect_all_bound() const;

 private:
  Result<const ResidentWeight*> find(const std::string& name, bool is_vector);

  const TensorList& list_;
  const ResidentWeights& weights_;
  std::set<std::string> bound_;
};

}  // namespace penstock
