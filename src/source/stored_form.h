// How a tensor of a checkpoint lies in memory and in a packed model, and its bytes in that form: what
// running in place and packing have in common, so that both compute with the same bits.
//
// Floats become panels; what is quantised stays in the codes of its file, rows in normal order, side
// by side for the kernels (quant/row_panels.h) where its coding can be. No value changes.
//
// Threads  One; what is laid out or quantised is shared with `team`.
// Memory   a few hundred rows at a time
// Errors   make_rows(): as ModelSource. check_values(), and make_rows() where it is asked to: kCorrupt,
//          naming tensor, row and column, for values that are no weights.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/thread_pool.h"
#include "compute/quantiser.h"
#include "format/expert_parts.h"
#include "format/matrix_form.h"
#include "quant/row_panels.h"
#include "source/model_source.h"

namespace penstock {

// Resident: BF16 as panels of bf16, F32, F16 and mixtures as panels of f32, vectors as they are.
MatrixForm resident_form(const SourceTensor& tensor);

// Whether this form of the tensor holds the codes of its file; else it is made of its values.
bool keeps_codes(const SourceTensor& tensor, const MatrixForm& form);

// The matrices of the experts of a layer: BF16 and F32 as panels, all else in codes. Fused only where
// gate and up are whole panels together and not alone, as when they are run in place.
RecordForms layer_forms(const LayerExperts& experts);

// One matrix of an expert as a tensor of its own; of fused ones gate's rows, then up's.
SourceTensor tensor_of(const StoredMatrix& matrix);
SourceTensor tensor_of(const StoredMatrix& gate, const StoredMatrix& up);

// Rows [first, first + count) of a plane. first is a multiple of kPanelRows, and so is count but at
// the end of the matrix. What is not coded has one plane, that of codes.
struct RowsWanted {
  CodedPlane plane = CodedPlane::kCodes;
  int64_t first = 0, count = 0;
};
uint64_t rows_bytes(const MatrixForm& form, int64_t columns, const RowsWanted& wanted);

struct MakeOptions {
  ThreadPool* team = nullptr;
  bool refuses_bad_values = false;          // NaN and infinities among floats
  bool refuses_bad_scales = false;          // and among scales and codes of what stays coded
  Quantiser quantiser = Quantiser::kRound;  // where values become codes of ours
};
Result<void> make_rows(ModelSource& source, const SourceTensor& tensor, const MatrixForm& form,
                       const RowsWanted& wanted, const MakeOptions& options,
                       std::span<std::byte> out);

// Index of the first value that is no weight (NaN, infinities and their like), or -1; and what to say
// of it.
int64_t find_unusable(std::span<const float> values);
Error unusable_value(std::string_view tensor, float value, int64_t row, int64_t column);

// Refuses such among the values of rows from first_row on.
Result<void> check_values(const SourceTensor& tensor, int64_t first_row,
                          std::span<const float> values);

// So many at once are a good choice.
inline constexpr int64_t kRowsAtOnce = 16 * kPanelRows;

// Whether up's rows are directly below gate's in the file, in every expert, with nothing beside them.
bool is_one_matrix(const ExpertMatrices& gate, const ExpertMatrices& up);

}  // namespace penstock
