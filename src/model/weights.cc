#include "model/weights.h"

#include <fmt/format.h>

namespace penstock {

Result<const ResidentTensor*> WeightBinder::find(const std::string& name, bool panels) {
  const TensorSpec* listed = list_.find(name);
  PENSTOCK_CHECK(listed != nullptr && (listed->stored != StoredAs::kVector) == panels);
  const ResidentTensor* tensor = container_.find(name);
  if (tensor == nullptr) {
    return Error{ErrorCode::kCorrupt, fmt::format("tensor {} is missing", name)};
  }
  if (tensor->panels != panels || tensor->rows != listed->rows ||
      tensor->columns != listed->columns) {
    return Error{
        ErrorCode::kCorrupt,
        fmt::format("tensor {} is {} [{}, {}], the configuration asks for {} [{}, {}]", name,
                    tensor->panels ? "a matrix" : "a vector", tensor->rows, tensor->columns,
                    panels ? "a matrix" : "a vector", listed->rows, listed->columns)};
  }
  PENSTOCK_CHECK(tensor->offset + tensor->bytes <= resident_.size());
  bound_.insert(name);
  return tensor;
}

Result<Matrix> WeightBinder::matrix(const std::string& name) {
  const ResidentTensor* tensor = PENSTOCK_TRY(find(name, true));
  return Matrix{tensor->dtype, tensor->rows, tensor->columns, resident_.data() + tensor->offset};
}

Result<std::span<const float>> WeightBinder::vector(const std::string& name) {
  const ResidentTensor* tensor = PENSTOCK_TRY(find(name, false));
  return std::span(reinterpret_cast<const float*>(resident_.data() + tensor->offset),
                   static_cast<size_t>(tensor->rows * tensor->columns));
}

Result<void> WeightBinder::expect_all_bound() const {
  for (const ResidentTensor& tensor : container_.tensors()) {
    if (!bound_.contains(tensor.name)) {
      return Error{ErrorCode::kCorrupt,
                   fmt::format("tensor {} is not part of this architecture", tensor.name)};
    }
  }
  return {};
}

}  // namespace penstock
