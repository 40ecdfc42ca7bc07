#include "model/weights.h"

#include <fmt/format.h>

namespace penstock {

Result<const ResidentWeight*> WeightBinder::find(const std::string& name, bool is_vector) {
  const TensorSpec* listed = list_.find(name);
  PENSTOCK_CHECK(listed != nullptr && (listed->stored == StoredAs::kVector) == is_vector);
  const ResidentWeight* weight = weights_.find(name);
  if (weight == nullptr) {
    return Error{ErrorCode::kCorrupt, fmt::format("tensor {} is missing", name)};
  }
  if (weight->is_vector != is_vector || weight->rows != listed->rows ||
      weight->columns != listed->columns) {
    return Error{
        ErrorCode::kCorrupt,
        fmt::format("tensor {} is {} [{}, {}], the configuration asks for {} [{}, {}]", name,
                    weight->is_vector ? "a vector" : "a matrix", weight->rows, weight->columns,
                    is_vector ? "a vector" : "a matrix", listed->rows, listed->columns)};
  }
  bound_.insert(name);
  return weight;
}

Result<Matrix> WeightBinder::matrix(const std::string& name) {
  const ResidentWeight* weight = PENSTOCK_TRY(find(name, false));
  return weight->matrix;
}

Result<std::span<const float>> WeightBinder::vector(const std::string& name) {
  const ResidentWeight* weight = PENSTOCK_TRY(find(name, true));
  return weight->vector;
}

Result<void> WeightBinder::expect_all_bound() const {
  for (const ResidentWeight& weight : weights_.all()) {
    if (!bound_.contains(weight.name)) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("tensor {} is not part of this architecture", weight.name)};
    }
  }
  return {};
}

}  // namespace penstock
