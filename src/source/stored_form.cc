#include "source/stored_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "compute/affine_quantiser.h"
#include "compute/panel.h"
#include "quant/number_check.h"
#include "source/row_panel_form.h"

namespace penstock {
namespace {

constexpr uint64_t kCopyBytes = 4 << 20;
// Above this the range of a group, maximum - minimum, could overflow; no weight is near it.
constexpr float kMagnitudeMax = 1e38f;

bool are_all(const SourceTensor& tensor, const Coding& coding) {
  return std::ranges::all_of(
      tensor.ranges, [&](const StoredRows& range) { return range.matrix.coding == coding; });
}

const Plane& plane_of(const StoredMatrix& matrix, CodedPlane plane) {
  if (plane == CodedPlane::kCodes) return matrix.codes;
  return plane == CodedPlane::kScales ? matrix.scales : matrix.biases;
}

// Rows [first, first + count) of one plane.
Result<void> read_plane(ModelSource& source, const Plane& plane, int64_t first, int64_t count,
                        std::byte* target) {
  uint64_t done = 0;
  const uint64_t bytes = static_cast<uint64_t>(count) * plane.row_bytes;
  const uint64_t begin = plane.offset + static_cast<uint64_t>(first) * plane.row_bytes;
  while (done < bytes) {
    const uint64_t step = std::min(kCopyBytes, bytes - done);
    PENSTOCK_TRY(source.read_bytes(plane.file, begin + done,
                                   std::span(target + done, static_cast<size_t>(step))));
    done += step;
  }
  return {};
}

// A row of scales for every row: rows that were put in another order no longer share theirs.
Result<void> read_scales(ModelSource& source, const StoredRows& range, const Plane& plane,
                         std::byte* target) {
  const int64_t shared = rows_of_scales(range.matrix.coding);
  if (shared == 1) return read_plane(source, plane, range.first_row, range.rows, target);
  const int64_t first = range.first_row / shared;
  const int64_t count = (range.first_row + range.rows - 1) / shared - first + 1;
  std::vector<std::byte> scales(static_cast<size_t>(count) * plane.row_bytes);
  PENSTOCK_TRY(read_plane(source, plane, first, count, scales.data()));
  for (int64_t row = 0; row < range.rows; ++row) {
    const auto from = static_cast<size_t>((range.first_row + row) / shared - first);
    std::memcpy(target + static_cast<size_t>(row) * plane.row_bytes,
                scales.data() + from * plane.row_bytes, plane.row_bytes);
  }
  return {};
}

// Rows of the tensor as they are coded, in normal order, one after the other.
Result<void> read_coded(ModelSource& source, const SourceTensor& tensor, const RowsWanted& wanted,
                        std::byte* target) {
  const int64_t first = wanted.first;
  int64_t before = 0;  // rows of the ranges before
  for (const StoredRows& range : tensor.ranges) {
    const int64_t begin = std::max(first, before);
    const int64_t end = std::min(first + wanted.count, before + range.rows);
    if (begin < end) {
      const Plane& where = plane_of(range.matrix, wanted.plane);
      const StoredRows rows = {range.matrix, range.first_row + begin - before, end - begin};
      std::byte* place = target + static_cast<uint64_t>(begin - first) * where.row_bytes;
      const Result<void> read = wanted.plane == CodedPlane::kCodes
                                    ? read_plane(source, where, rows.first_row, rows.rows, place)
                                    : read_scales(source, rows, where, place);
      if (!read) return read.error().with_context("tensor " + tensor.name);
    }
    before += range.rows;
  }
  return {};
}

// rows: those wanted, one after the other, in normal order.
Result<void> check_scales(const ModelSource& source, const SourceTensor& tensor,
                          const Coding& coding, const RowsWanted& wanted,
                          std::span<const std::byte> rows) {
  const size_t row_bytes = rows.size() / static_cast<size_t>(wanted.count);
  for (int64_t row = 0; row < wanted.count; ++row) {
    const int64_t column = find_no_number(
        coding, wanted.plane, rows.subspan(static_cast<size_t>(row) * row_bytes, row_bytes));
    if (column < 0) continue;
    const uint32_t file = plane_of(tensor.ranges.front().matrix, wanted.plane).file;
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: tensor {} holds what is no number at row {}, column {} ({}); the "
                             "checkpoint is damaged, fetch the file again",
                             source.files()[file].path, tensor.name, wanted.first + row, column,
                             name_of(coding))};
  }
  return {};
}

template <class Body>
void run(ThreadPool* team, int64_t count, const Body& body) {
  if (team != nullptr) return team->run(count, body);
  for (int64_t i = 0; i < count; ++i) body(i, 0);
}

Result<void> make_coded_panels(ModelSource& source, const SourceTensor& tensor,
                               const MatrixForm& form, const RowsWanted& wanted,
                               const MakeOptions& options, std::span<std::byte> out) {
  const uint64_t row = bytes_of(row_bytes(form.coding, tensor.columns), wanted.plane);
  const uint64_t panel = bytes_of(row_panel_bytes(form.coding, tensor.columns), wanted.plane);
  std::vector<std::byte> rows(static_cast<size_t>(wanted.count) * row);
  PENSTOCK_TRY(read_coded(source, tensor, wanted, rows.data()));
  if (options.refuses_bad_scales) {
    PENSTOCK_TRY(check_scales(source, tensor, form.coding, wanted, rows));
  }
  run(options.team, (wanted.count + kPanelRows - 1) / kPanelRows, [&](int64_t index, int) {
    const int64_t r = index * kPanelRows;
    const PlaneRows lanes = {.rows = rows.data() + static_cast<uint64_t>(r) * row,
                             .stride = row,
                             .count = std::min(kPanelRows, wanted.count - r)};
    make_row_panel(form.coding, wanted.plane, tensor.columns, lanes,
                   out.subspan(static_cast<uint64_t>(index) * panel, panel));
  });
  return {};
}

Result<void> make_values(ModelSource& source, const SourceTensor& tensor, const MatrixForm& form,
                         const RowsWanted& wanted, const MakeOptions& options,
                         std::span<std::byte> out) {
  std::vector<float> values(static_cast<size_t>(wanted.count * tensor.columns));
  PENSTOCK_TRY(source.read_rows(tensor, wanted.first, values));
  if (options.refuses_bad_values) PENSTOCK_TRY(check_values(tensor, wanted.first, values));
  if (form.is_plain()) {
    std::memcpy(out.data(), values.data(), out.size());
    return {};
  }
  const uint64_t panel = rows_bytes(form, tensor.columns, {wanted.plane, 0, kPanelRows});
  run(options.team, (wanted.count + kPanelRows - 1) / kPanelRows, [&](int64_t index, int) {
    const int64_t first = index * kPanelRows;
    const int64_t count = std::min(kPanelRows, wanted.count - first);
    const auto rows = std::span(values).subspan(static_cast<size_t>(first * tensor.columns),
                                                static_cast<size_t>(count * tensor.columns));
    const auto panels = out.subspan(static_cast<uint64_t>(index) * panel, panel);
    if (form.is_coded()) {
      quantise_affine_panels(form.coding, wanted.plane, options.quantiser, rows, count,
                             tensor.columns, panels);
    } else if (is_quantised(form.dtype)) {
      quantise_panels(form.dtype, options.quantiser, rows, count, tensor.columns, panels);
    } else {
      make_panels(form.dtype, rows, count, tensor.columns, panels);
    }
  });
  return {};
}

MatrixForm expert_form(const StoredMatrix& matrix, int64_t rows) {
  const Coding& coding = matrix.coding;
  if (coding == Coding{.block = BlockType::kBF16}) return panel_form(DType::kBF16);
  if (coding == Coding{.block = BlockType::kF32}) return panel_form(DType::kF32);
  return coded_form(coding, fit_row_panels(coding, rows, matrix.columns));
}

}  // namespace

bool is_one_matrix(const ExpertMatrices& gate, const ExpertMatrices& up) {
  const StoredMatrix& a = gate.first;
  const StoredMatrix& b = up.first;
  return gate.single.empty() && up.single.empty() && a.coding == b.coding &&
         a.coding.kind == Coding::Kind::kBlocks && gate.stride.codes == up.stride.codes &&
         a.codes.file == b.codes.file &&
         b.codes.offset == a.codes.offset + static_cast<uint64_t>(a.rows) * a.codes.row_bytes;
}

MatrixForm resident_form(const SourceTensor& tensor) {
  if (tensor.is_plain) return plain_form();
  const Coding coding = tensor.ranges.front().matrix.coding;
  if (!is_float(coding) && are_all(tensor, coding)) {
    PENSTOCK_CHECK(tensor.change == ValueChange::kNone);
    return coded_form(coding, has_row_panels(coding, tensor.columns));
  }
  const bool is_bf16 = are_all(tensor, {.block = BlockType::kBF16});
  return panel_form(is_bf16 ? DType::kBF16 : DType::kF32);
}

bool keeps_codes(const SourceTensor& tensor, const MatrixForm& form) {
  return form.is_coded() && are_all(tensor, form.coding);
}

RecordForms layer_forms(const LayerExperts& experts) {
  const ExpertMatrices& gate = experts[ExpertPart::kGate];
  const ExpertMatrices& up = experts[ExpertPart::kUp];
  const StoredMatrix& down = experts[ExpertPart::kDown].first;
  RecordForms forms;
  forms.gate = expert_form(gate.first, gate.first.rows);
  forms.up = expert_form(up.first, up.first.rows);
  forms.down = expert_form(down, down.rows);
  if (is_one_matrix(gate, up)) {
    const MatrixForm both = expert_form(gate.first, gate.first.rows + up.first.rows);
    forms.is_fused = both != forms.gate;
    if (forms.is_fused) forms.gate = forms.up = both;
  }
  return forms;
}

SourceTensor tensor_of(const StoredMatrix& matrix) {
  return {.name = {},
          .rows = matrix.rows,
          .columns = matrix.columns,
          .ranges = {{matrix, 0, matrix.rows}}};
}

SourceTensor tensor_of(const StoredMatrix& gate, const StoredMatrix& up) {
  SourceTensor tensor = tensor_of(gate);
  tensor.rows += up.rows;
  tensor.ranges.push_back({up, 0, up.rows});
  return tensor;
}

uint64_t rows_bytes(const MatrixForm& form, int64_t columns, const RowsWanted& wanted) {
  if (form.is_plain()) return static_cast<uint64_t>(wanted.count * columns) * sizeof(float);
  const bool is_first = wanted.plane == CodedPlane::kCodes;
  if (!form.is_coded()) {
    return is_first ? static_cast<uint64_t>(panel_bytes(form.dtype, wanted.count, columns)) : 0;
  }
  if (form.layout == MatrixLayout::kCodedRows) {
    return static_cast<uint64_t>(wanted.count) *
           bytes_of(row_bytes(form.coding, columns), wanted.plane);
  }
  return static_cast<uint64_t>((wanted.count + kPanelRows - 1) / kPanelRows) *
         bytes_of(row_panel_bytes(form.coding, columns), wanted.plane);
}

int64_t find_unusable(std::span<const float> values) {
  bool all_good = true;
  for (const float value : values) all_good &= std::fabs(value) <= kMagnitudeMax;
  if (all_good) return -1;
  const auto found = std::ranges::find_if(
      values, [](float value) { return !(std::fabs(value) <= kMagnitudeMax); });
  return found - values.begin();
}

Error unusable_value(std::string_view tensor, float value, int64_t row, int64_t column) {
  return {ErrorCode::kCorrupt,
          fmt::format("tensor {} holds {} at row {}, column {}; the checkpoint is damaged, fetch "
                      "the file again",
                      tensor, value, row, column)};
}

Result<void> check_values(const SourceTensor& tensor, int64_t first_row,
                          std::span<const float> values) {
  const int64_t index = find_unusable(values);
  if (index < 0) return {};
  return unusable_value(tensor.name, values[static_cast<size_t>(index)],
                        first_row + index / tensor.columns, index % tensor.columns);
}

Result<void> make_rows(ModelSource& source, const SourceTensor& tensor, const MatrixForm& form,
                       const RowsWanted& wanted, const MakeOptions& options,
                       std::span<std::byte> out) {
  PENSTOCK_CHECK(wanted.first % kPanelRows == 0 && wanted.first + wanted.count <= tensor.rows);
  PENSTOCK_CHECK(out.size() == rows_bytes(form, tensor.columns, wanted));
  if (out.empty()) return {};
  if (!keeps_codes(tensor, form)) return make_values(source, tensor, form, wanted, options, out);
  if (form.layout == MatrixLayout::kCodedRows) {
    PENSTOCK_TRY(read_coded(source, tensor, wanted, out.data()));
    if (options.refuses_bad_scales) {
      PENSTOCK_TRY(check_scales(source, tensor, form.coding, wanted, out));
    }
    return {};
  }
  return make_coded_panels(source, tensor, form, wanted, options, out);
}

}  // namespace penstock
