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
    const RowBytes row = row_bytes(coding, tensor.columns);
    placed.offset = reserve(rows * row.codes);
    placed.scales = reserve(rows * row.scales);
    placed.biases = reserve(rows * row.biases);
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

Result<CodedRows> SourceWeights::load_coded(ModelSource& source, const SourceTensor& tensor,
                                            const Placed& placed, std::byte* memory) {
  CodedRows made{.coding = placed.coding, .codes = memory + placed.offset};
  const RowBytes row = row_bytes(placed.coding, tensor.columns);
  if (row.scales > 0) made.scales = memory + placed.scales;
  if (row.biases > 0) made.biases = memory + placed.biases;
  if (!tensor.order.is_natural()) made.order = &tensor.order;
  uint64_t done = 0;  // rows
  for (const StoredRows& range : tensor.ranges) {
    const StoredMatrix& matrix = range.matrix;
    const auto load = [&]() -> Result<void> {
      PENSTOCK_TRY(read_plane(source, matrix.codes, range.first_row, range.rows,
                              memory + placed.offset + done * row.codes));
      if (row.scales > 0) {
        PENSTOCK_TRY(
            read_scales(source, range, matrix.scales, memory + placed.scales + done * row.scales));
      }
      if (row.biases > 0) {
        PENSTOCK_TRY(
            read_scales(source, range, matrix.biases, memory + placed.biases + done * row.biases));
      }
      return {};
    };
    const Result<void> loaded = load();
    if (!loaded) return loaded.error().with_context("tensor " + tensor.name);
    done += static_cast<uint64_t>(range.rows);
  }
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
