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

void ResidentWeights::add_stored(std::string name, const MatrixForm& form, int64_t rows,
                                 int64_t columns, const std::byte* place,
                                 const ColumnOrder& order) {
  if (form.is_plain()) {
    add_vector(std::move(name), rows, columns, reinterpret_cast<const float*>(place));
  } else {
    add_matrix(std::move(name), stored_matrix(form, rows, columns, place, order));
  }
}

const ResidentWeight* ResidentWeights::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &weights_[found->second];
}

Matrix stored_matrix(const MatrixForm& form, int64_t rows, int64_t columns, const std::byte* place,
                     const ColumnOrder& order) {
  if (!form.is_coded()) return {form.dtype, rows, columns, place};
  const std::optional<PlacedPlanes> planes = place_matrix(form, rows, columns);
  PENSTOCK_CHECK(planes.has_value());  // who placed it there has asked
  Matrix matrix{.rows = rows, .columns = columns};
  matrix.coded = {.coding = form.coding,
                  .codes = place + planes->at.codes,
                  .scale_rows = form.layout == MatrixLayout::kCodedPanels ? 0 : 1};
  if (planes->sizes.scales > 0) matrix.coded.scales = place + planes->at.scales;
  if (planes->sizes.biases > 0) matrix.coded.biases = place + planes->at.biases;
  if (!order.is_natural()) matrix.coded.order = &order;
  return matrix;
}

ResidentWeights packed_weights(const Container& container, std::span<const std::byte> resident) {
  ResidentWeights weights;
  for (const ResidentTensor& tensor : container.tensors()) {
    PENSTOCK_CHECK(tensor.offset + tensor.bytes <= resident.size());
    weights.add_stored(tensor.name, tensor.form, tensor.rows, tensor.columns,
                       resident.data() + tensor.offset, tensor.order);
  }
  return weights;
}

}  // namespace penstock
