// The weights of a model that stay in memory, by name: matrices and vectors, wherever they came from.
//
// Memory  owns nothing but names: views into resident memory, which outlives it
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "compute/panel.h"
#include "format/container.h"

namespace penstock {

struct ResidentWeight {
  std::string name;  // normal (docs/formats.md)
  bool is_vector = false;
  Matrix matrix = {};             // not of a vector
  std::span<const float> vector;  // row-major, all its rows
  int64_t rows = 0, columns = 0;  // of either; a vector has one row, a convolution several
};

class ResidentWeights {
 public:
  void add_matrix(std::string name, const Matrix& matrix);
  void add_vector(std::string name, int64_t rows, int64_t columns, const float* values);
  // Whichever it is by its form, at `place`; views that and `order`.
  void add_stored(std::string name, const MatrixForm& form, int64_t rows, int64_t columns,
                  const std::byte* place, const ColumnOrder& order);

  const ResidentWeight* find(std::string_view name) const;
  const std::vector<ResidentWeight>& all() const { return weights_; }

 private:
  void add(ResidentWeight weight);

  std::vector<ResidentWeight> weights_;
  std::unordered_map<std::string, size_t> by_name_;
};

// A stored matrix at `place`, whatever its form; views that and `order`.
Matrix stored_matrix(const MatrixForm& form, int64_t rows, int64_t columns, const std::byte* place,
                     const ColumnOrder& order);

// Of a packed model, which outlives them. resident: the bytes of its resident.bin.
ResidentWeights packed_weights(const Container& container, std::span<const std::byte> resident);

}  // namespace penstock
