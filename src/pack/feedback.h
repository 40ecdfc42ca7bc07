// A matrix quantised so that its products with the inputs it will see change least.
//
//   loss = sum over rows of d H d^T + kCommon * (d H w^T)^2 / (w H w^T)
//   w = a row, d = stored row - w, H = sum of x x^T over inputs x
//
// The second term is what all of a row's products lose in common (compute/quantiser.h).
// Columns are coded one after the other, and what one loses the later ones make good: H = M D M^T
// with M unit upper triangular makes the first term a sum of D(j) * (d(j) + sum of d(k) M(k, j), k < j)^2, so
// the best value of column j, given those before it, is row(j) minus that sum. A group's scale and bias
// are searched for these values, by importance D(j) (compute/quantiser.h). Then codes and lines are
// taken up again in sweeps, each given all others, as long as that lowers the loss.
//
// No row becomes worse than by rounding: where it would, rounding's codes are stored.
//
// What a block of 64 columns gets from all others is a product of matrices, by the backend's kernels; what
// goes on inside of the block is done here, for 16 rows side by side.
//
// Threads  Rows are shared in panels; a row's bits depend on its weights and H alone.
// Memory   H four times; a few copies of the matrix in f32
// Errors   kOutOfMemory of create()
// Source   Frantar et al., "GPTQ" (2022); Chee et al., "QuIP" (2023), for the form with M and D;
//          Behdin et al., "QuantEase" (2023), for the sweeps
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "compute/cpu/cpu_backend.h"

namespace penstock {

// H of `columns` inputs, and M and D of it. H is damped: 0.3 of its mean diagonal is added, for inputs
// that no text of a calibration has.
class InputMoments {
 public:
  // moments: H, [columns, columns], symmetric and without negative squares; finite. kOutOfMemory.
  static Result<InputMoments> create(std::vector<float> moments, int64_t columns, ThreadPool& team);

  int64_t columns() const { return columns_; }
  std::span<const float> row(int64_t column) const {
    return std::span(moments_).subspan(at(column, 0), static_cast<size_t>(columns_));
  }
  // M(k, column) for k < column.
  std::span<const float> feedback(int64_t column) const {
    return std::span(feedback_).subspan(at(column, 0), static_cast<size_t>(column));
  }
  std::span<const float> importance() const { return importance_; }  // D

  // Rows of H and of M, transposed, that belong to a block of 64 columns, to multiply with.
  Matrix moments_of(int64_t block) const { return rows_of(moment_panels_, block); }
  Matrix feedback_of(int64_t block) const { return rows_of(feedback_panels_, block); }

 private:
  InputMoments(std::vector<float> moments, int64_t columns)
      : columns_(columns), moments_(std::move(moments)) {}
  size_t at(int64_t row, int64_t column) const {
    return static_cast<size_t>(row * columns_ + column);
  }
  Matrix rows_of(const AlignedMemory& panels, int64_t block) const;
  void factor(ThreadPool& team);

  int64_t columns_;
  std::vector<float> moments_;
  std::vector<float> feedback_;  // row j is column j of M, zeros from j on
  std::vector<float> importance_;
  AlignedMemory moment_panels_, feedback_panels_;
};

struct FeedbackLoss {
  double rounded = 0;  // of quantise_group()
  double stored = 0;
  double whole = 0;  // sum over rows of w H w^T
};

// weights: [rows, columns]. out: panel_bytes(). columns a multiple of 64. The backend has room for
// products of so many rows.
FeedbackLoss quantise_with_feedback(DType dtype, std::span<const float> weights, int64_t rows,
                                    const InputMoments& inputs, CpuBackend& backend,
                                    std::span<std::byte> out);

}  // namespace penstock
