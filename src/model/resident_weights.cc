#include "model/resident_weights.h"

#include <utility>

#include "base/check.h"

namespace penstock {

void ResidentWeights::add(ResidentWeight weight) {
  by_name_[weight.name] = weights_.size();
  weights_.push_back(std::move(weight));
}

void ResidentWeights::add_matrix(std::string name, const Matrix& matrix) {
  add({.name = std::move(name),
       .matrix = matrix,
       .vector = {},
       .rows = matrix.rows,
       .columns = matrix.columns});
}

void ResidentWeights::add_vector(std::string name, int64_t rows, int64_t columns,
                                 const float* values) {
  add({.name = std::move(name),
       .is_vector = true,
       .vector = std::span(values, static_cast<size_t>(rows * columns)),
       .rows = rows,
       .columns = columns});
}

const ResidentWeight* ResidentWeights::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &weights_[found->second];
}

ResidentWeights packed_weights(const Container& container, std::span<const std::byte> resident) {
  ResidentWeights weights;
  for (const ResidentTensor& tensor : container.tensors()) {
    PENSTOCK_CHECK(tensor.offset + tensor.bytes <= resident.size());
    const std::byte* place = resident.data() + tensor.offset;
    if (tensor.panels) {
      weights.add_matrix(tensor.name, Matrix{tensor.dtype, tensor.rows, tensor.columns, place});
    } else {
      weights.add_vector(tensor.name, tensor.rows, tensor.columns,
                         reinterpret_cast<const float*>(place));
    }
  }
  return weights;
}

}  // namespace penstock
