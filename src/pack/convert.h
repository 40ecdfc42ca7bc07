// From rows of a source to their stored form, in a fixed small memory.
//
// A matrix is taken in chunks of whole panels: one sequential read, then every group of 16 rows is
// widened, checked and put into its panel by whichever worker is free. A group's bytes depend on
// its rows alone, so the result is the same for any number of threads and any size of chunk.
//
// Memory  About three chunks (input, scratch, output) of kChunkBytes, or of 16 rows where those are
//         more; from AlignedMemory, at create().
// Errors  kCorrupt naming tensor and index for NaN, infinities and values that no scale can hold;
//         what Checkpoint::read returns; kOutOfMemory; kCancelled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>

#include "base/memory.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "compute/quantiser.h"
#include "format/checkpoint.h"
#include "format/matrix_form.h"
#include "pack/plan.h"
#include "source/stored_form.h"

namespace penstock {

// How a matrix is stored: ResidentTensor without name and place.
struct StoredForm {
  MatrixForm form = {};
  Change change = Change::kNone;
  Quantiser quantiser = Quantiser::kRound;
};

class Converter {
 public:
  // `plan` tells the widest rows.
  static Result<Converter> create(Checkpoint& checkpoint, const PackPlan& plan, int num_threads);

  // Hands the stored bytes of the whole matrix to `sink`, in order.
  using Sink = std::function<Result<void>(std::span<const std::byte>)>;
  Result<void> convert(const MatrixSource& source, const StoredForm& form, const Sink& sink,
                       const std::stop_token& stop);

  uint64_t source_bytes_read() const { return source_bytes_read_; }

 private:
  struct Chunk;

  Converter(Checkpoint& checkpoint, int num_threads)
      : checkpoint_(&checkpoint), pool_(std::make_unique<ThreadPool>(num_threads)) {}

  Result<void> convert_plane(const MatrixSource& source, const StoredForm& form, CodedPlane plane,
                             const Sink& sink, const std::stop_token& stop);
  Result<void> read_rows(const MatrixSource& source, int64_t first_row, int64_t rows,
                         uint64_t row_bytes);
  Result<void> convert_chunk(const MatrixSource& source, const StoredForm& stored,
                             const Chunk& chunk);

  Checkpoint* checkpoint_;
  std::unique_ptr<ThreadPool> pool_;
  AlignedMemory input_;
  AlignedMemory scratch_;  // f32, kPanelRows of the widest rows per worker
  AlignedMemory output_;
  uint64_t source_bytes_read_ = 0;
};

}  // namespace penstock
