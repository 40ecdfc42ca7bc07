#include "source/source_weights.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace penstock {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr int64_t kRowsAtOnce = 16 * kPanelRows;
constexpr uint64_t kCopyBytes = 4 << 20;

bool are_all(const SourceTensor& tensor, const Coding& coding) {
  return std::ranges::all_of(
      tensor.ranges, [&](const StoredRows& range) { return range.matrix.coding == coding; });
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

}  // namespace

SourceWeights::SourceWeights(const ModelSource& source) {
  for (const SourceTensor& tensor : source.tensors()) placed_.push_back(place(tensor));
}

uint64_t SourceWeights::reserve(uint64_t bytes) {
  const uint64_t offset = bytes_;
  bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return offset;
}

SourceWeights::Placed SourceWeights::place(const SourceTensor& tensor) {
  Placed placed;
  const auto rows = static_cast<uint64_t>(tensor.rows);
  if (tensor.is_plain) {
    placed.offset = reserve(rows * static_cast<uint64_t>(tensor.columns) * sizeof(float));
    return placed;
  }
  const Coding coding = tensor.ranges.front().matrix.coding;
  const bool is_coded = !is_float(coding) && are_all(tensor, coding);
  if (is_coded) {
    PENSTOCK_CHECK(tensor.change == ValueChange::kNone);
    placed.form = Form::kCoded;
    placed.coding = coding;
    placed.in_panels = has_row_panels(coding, tensor.columns);
    const RowBytes row = placed.in_panels ? row_panel_bytes(coding, tensor.columns)
                                          : row_bytes(coding, tensor.columns);
    const uint64_t count = placed.in_panels ? (rows + kPanelRows - 1) / kPanelRows : rows;
    placed.offset = reserve(count * row.codes);
    placed.scales = reserve(count * row.scales);
    placed.biases = reserve(count * row.biases);
    return placed;
  }
  placed.form = Form::kPanels;
  placed.dtype = are_all(tensor, {.block = BlockType::kBF16}) ? DType::kBF16 : DType::kF32;
  placed.offset =
      reserve(static_cast<uint64_t>(panel_bytes(placed.dtype, tensor.rows, tensor.columns)));
  return placed;
}

Result<void> SourceWeights::load_panels(ModelSource& source, const SourceTensor& tensor,
                                        DType dtype, std::byte* target) {
  std::vector<float> values;
  for (int64_t row = 0; row < tensor.rows; row += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, tensor.rows - row);
    values.resize(static_cast<size_t>(count * tensor.columns));
    PENSTOCK_TRY(source.read_rows(tensor, row, values));
    make_panels(dtype, values, count, tensor.columns,
                std::span(target + panel_bytes(dtype, row, tensor.columns),
                          static_cast<size_t>(panel_bytes(dtype, count, tensor.columns))));
  }
  return {};
}

// Rows [first, first + count) of the tensor, in normal order, one after the other.
Result<void> SourceWeights::read_coded(ModelSource& source, const SourceTensor& tensor,
                                       CodedPlane plane, int64_t first, int64_t count,
                                       std::byte* target) {
  int64_t before = 0;  // rows of the ranges before
  for (const StoredRows& range : tensor.ranges) {
    const int64_t begin = std::max(first, before),
                  end = std::min(first + count, before + range.rows);
    if (begin < end) {
      const Plane& where = plane == CodedPlane::kCodes    ? range.matrix.codes
                           : plane == CodedPlane::kScales ? range.matrix.scales
                                                          : range.matrix.biases;
      const StoredRows rows = {range.matrix, range.first_row + begin - before, end - begin};
      std::byte* place = target + static_cast<uint64_t>(begin - first) * where.row_bytes;
      const Result<void> read = plane == CodedPlane::kCodes
                                    ? read_plane(source, where, rows.first_row, rows.rows, place)
                                    : read_scales(source, rows, where, place);
      if (!read) return read.error().with_context("tensor " + tensor.name);
    }
    before += range.rows;
  }
  return {};
}

Result<void> SourceWeights::load_plane(ModelSource& source, const SourceTensor& tensor,
                                       const Placed& placed, CodedPlane plane, std::byte* target) {
  const uint64_t row = bytes_of(row_bytes(placed.coding, tensor.columns), plane);
  if (row == 0) return {};
  if (!placed.in_panels) return read_coded(source, tensor, plane, 0, tensor.rows, target);
  const uint64_t panel = bytes_of(row_panel_bytes(placed.coding, tensor.columns), plane);
  std::vector<std::byte> rows(static_cast<size_t>(kRowsAtOnce) * row);
  for (int64_t first = 0; first < tensor.rows; first += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, tensor.rows - first);
    PENSTOCK_TRY(read_coded(source, tensor, plane, first, count, rows.data()));
    for (int64_t r = 0; r < count; r += kPanelRows) {
      const PlaneRows lanes = {.rows = rows.data() + static_cast<uint64_t>(r) * row,
                               .stride = row,
                               .count = std::min(kPanelRows, count - r)};
      const auto index = static_cast<uint64_t>((first + r) / kPanelRows);
      make_row_panel(placed.coding, plane, tensor.columns, lanes, {target + index * panel, panel});
    }
  }
  return {};
}

Result<CodedRows> SourceWeights::load_coded(ModelSource& source, const SourceTensor& tensor,
                                            const Placed& placed, std::byte* memory) {
  CodedRows made{.coding = placed.coding,
                 .codes = memory + placed.offset,
                 .scale_rows = placed.in_panels ? 0 : 1};
  const RowBytes row = row_bytes(placed.coding, tensor.columns);
  if (row.scales > 0) made.scales = memory + placed.scales;
  if (row.biases > 0) made.biases = memory + placed.biases;
  if (!tensor.order.is_natural()) made.order = &tensor.order;
  PENSTOCK_TRY(load_plane(source, tensor, placed, CodedPlane::kCodes, memory + placed.offset));
  PENSTOCK_TRY(load_plane(source, tensor, placed, CodedPlane::kScales, memory + placed.scales));
  PENSTOCK_TRY(load_plane(source, tensor, placed, CodedPlane::kBiases, memory + placed.biases));
  return made;
}

Result<ResidentWeights> SourceWeights::load(
    ModelSource& source, std::span<std::byte> memory,
    const std::function<void(uint64_t done, uint64_t total)>& progress) const {
  PENSTOCK_CHECK(memory.size() >= bytes_ && source.tensors().size() == placed_.size());
  ResidentWeights weights;
  for (size_t i = 0; i < placed_.size(); ++i) {
    const SourceTensor& tensor = source.tensors()[i];
    const Placed& placed = placed_[i];
    std::byte* place = memory.data() + placed.offset;
    if (placed.form == Form::kVector) {
      const std::span<float> values(reinterpret_cast<float*>(place),
                                    static_cast<size_t>(tensor.rows * tensor.columns));
      PENSTOCK_TRY(source.read_rows(tensor, 0, values));
      weights.add_vector(tensor.name, tensor.rows, tensor.columns, values.data());
    } else if (placed.form == Form::kPanels) {
      PENSTOCK_TRY(load_panels(source, tensor, placed.dtype, place));
      weights.add_matrix(tensor.name, Matrix{placed.dtype, tensor.rows, tensor.columns, place});
    } else {
      Matrix matrix{.rows = tensor.rows, .columns = tensor.columns};
      matrix.coded = PENSTOCK_TRY(load_coded(source, tensor, placed, memory.data()));
      weights.add_matrix(tensor.name, matrix);
    }
    if (progress) progress(i + 1 < placed_.size() ? placed_[i + 1].offset : bytes_, bytes_);
  }
  return weights;
}

}  // namespace penstock
