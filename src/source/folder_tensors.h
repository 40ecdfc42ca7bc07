// Finds the matrices of a folder: by the name of a module, whatever its weight is coded as.
//
// Threads  One.
// Errors   kNotFound: no such tensor, or one that belongs to it is missing.
//          kCorrupt: another shape.
//          kUnsupported: a type that is not read.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "format/checkpoint.h"
#include "format/quantisation.h"
#include "source/coding.h"

namespace penstock {

class FolderTensors {
 public:
  FolderTensors(const Checkpoint& checkpoint, const Quantisation& quantisation)
      : checkpoint_(&checkpoint), quantisation_(&quantisation) {}

  bool has(const std::string& name) const { return checkpoint_->find(name) != nullptr; }
  bool has_module(const std::string& module) const { return has(module + ".weight"); }

  // NAME.weight of a module, or of `leading` of them in one stacked tensor [leading, rows, columns]
  // (0: not stacked). The planes are those of the first.
  Result<StoredMatrix> module(const std::string& name, int64_t leading, int64_t rows,
                              int64_t columns);

  // A tensor by its whole name, which must hold floats, in exactly this shape.
  Result<StoredMatrix> floats(const std::string& name, const std::vector<int64_t>& shape);

  // Tensors that nobody asked for, in the order of their names.
  std::vector<const CheckpointTensor*> left_over() const;

 private:
  Result<const CheckpointTensor*> take(const std::string& name, const std::vector<int64_t>& shape);
  Result<StoredMatrix> fp8(const std::string& name, const std::vector<int64_t>& shape);
  Result<StoredMatrix> mlx(const std::string& name, std::vector<int64_t> shape);
  Plane plane(const CheckpointTensor& tensor, uint64_t row_bytes) const;
  Error error(ErrorCode code, const std::string& reason) const;

  const Checkpoint* checkpoint_;
  const Quantisation* quantisation_;
  std::unordered_set<const CheckpointTensor*> taken_;
};

}  // namespace penstock
