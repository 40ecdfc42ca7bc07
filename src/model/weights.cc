#include "model/weights.h"

#include <fmt/format.h>

namespace penstock {

Result<const ResidentTensor*> WeightBinder::find(const std::string& name, bool panels, int64_t rows,
                                                 int64_t columns) {
  const ResidentTensor* tensor = container_.find(name);
  if (tensor == nullptr) {
    return Error{ErrorCode::kCorrupt, fmt::format("tensor {} is missing", name)};
  }
  if (tensor->panels != panels || tensor->rows != rows || tensor->columns != columns) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("tensor {} is {} [{}, {}], the configuration asks for {} [{}, {}]",
                             name, tensor->panels ? "a matrix" : "a vector", tensor->rows,
                             tensor->columns, panels ? "a matrix" : "a vector", rows, columns)};
  }
  PENSTOCK_CHECK(tensor->offset + tensor->bytes <= resident_.size());
  bound_.insert(name);
  return tensor;
}

Result<Matrix> WeightBinder::matrix(const std::string& name, int64_t rows, int64_t columns) {
  const ResidentTensor* tensor = PENSTOCK_TRY(find(name, true, rows, columns));
  return Matrix{tensor->dtype, rows, columns, resident_.data() + tensor->offset};
}

Result<const float*> WeightBinder::vector(const std::string& name, int64_t rows, int64_t columns) {
  const ResidentTensor* tensor = PENSTOCK_TRY(find(name, false, rows, columns));
  return reinterpret_cast<const float*>(resident_.data() + tensor->offset);
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
