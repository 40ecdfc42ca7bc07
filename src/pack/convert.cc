#include "pack/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/thread.h"
#include "compute/affine_quantiser.h"
#include "compute/panel.h"
#include "format/text.h"
#include "source/stored_form.h"

namespace penstock {
namespace {

constexpr int64_t kChunkBytes = 16 << 20;  // of f32 values

int64_t chunk_rows_of(int64_t columns) {
  const int64_t rows = kChunkBytes / (columns * static_cast<int64_t>(sizeof(float)));
  return std::max(kPanelRows, rows / kPanelRows * kPanelRows);
}

void apply(Change change, std::span<float> values) {
  switch (change) {
    case Change::kNone: return;
    case Change::kAddOne:
      for (float& value : values) value += 1.0f;
      return;
    case Change::kMinusExp:
      // In double, so that the rounded result does not depend on the library's last bit.
      for (float& value : values) value = static_cast<float>(-std::exp(static_cast<double>(value)));
      return;
  }
}

// Which source row a row of the matrix is.
struct SourceRow {
  const CheckpointTensor* tensor;
  int64_t row;
};
SourceRow source_row(const MatrixSource& source, int64_t row) {
  for (const RowRange& range : source.ranges) {
    if (row < range.rows) return {range.tensor, range.first_row + row};
    row -= range.rows;
  }
  check_failed(__FILE__, __LINE__, "row within the matrix");
}

Error unusable_element(const MatrixSource& source, int64_t columns, int64_t element, float value) {
  const SourceRow place = source_row(source, element / columns);
  return unusable_value(escaped(place.tensor->info.name), value, place.row, element % columns);
}

}  // namespace

struct Converter::Chunk {
  int64_t first_row, rows, columns;
  DType source_dtype;
  uint64_t row_bytes;
  CodedPlane plane;
  std::span<std::byte> out;
};

Result<Converter> Converter::create(Checkpoint& checkpoint, const PackPlan& plan, int num_threads) {
  int64_t columns_max = std::max(plan.experts().hidden_size, plan.experts().intermediate_size);
  for (const ResidentPiece& piece : plan.resident()) {
    columns_max = std::max(columns_max, piece.tensor.columns);
  }
  columns_max = (columns_max + kGroupColumns - 1) / kGroupColumns * kGroupColumns;
  Converter result(checkpoint, num_threads);
  PENSTOCK_TRY(check_team(*result.pool_, num_threads));
  const auto bytes = static_cast<uint64_t>(
      std::max(kChunkBytes, kPanelRows * columns_max * static_cast<int64_t>(sizeof(float))));
  result.input_ = PENSTOCK_TRY(AlignedMemory::create(bytes, "the rows being packed"));
  result.output_ = PENSTOCK_TRY(AlignedMemory::create(bytes, "the packed rows"));
  result.scratch_ = PENSTOCK_TRY(AlignedMemory::create(
      static_cast<uint64_t>(num_threads * kPanelRows * columns_max) * sizeof(float),
      "the rows being quantised"));
  return result;
}

Result<void> Converter::read_rows(const MatrixSource& source, int64_t first_row, int64_t rows,
                                  uint64_t row_bytes) {
  std::span<std::byte> target = input_.bytes();
  int64_t skip = first_row;
  for (const RowRange& range : source.ranges) {
    if (rows == 0) break;
    if (skip >= range.rows) {
      skip -= range.rows;
      continue;
    }
    const int64_t taken = std::min(range.rows - skip, rows);
    const uint64_t bytes = static_cast<uint64_t>(taken) * row_bytes;
    const uint64_t offset = static_cast<uint64_t>(range.first_row + skip) * row_bytes;
    PENSTOCK_TRY(checkpoint_->read(*range.tensor, offset, target.first(bytes)));
    target = target.subspan(bytes);
    source_bytes_read_ += bytes;
    rows -= taken;
    skip = 0;
  }
  PENSTOCK_CHECK(rows == 0);
  return {};
}

Result<void> Converter::convert_chunk(const MatrixSource& source, const StoredForm& stored,
                                      const Chunk& chunk) {
  const int64_t groups = (chunk.rows + kPanelRows - 1) / kPanelRows;
  const uint64_t group_bytes = rows_bytes(stored.form, chunk.columns, {chunk.plane, 0, kPanelRows});
  auto* scratch = reinterpret_cast<float*>(scratch_.bytes().data());
  std::atomic<int64_t> first_bad{INT64_MAX};

  pool_->run(groups, [&](int64_t group, int worker) {
    const int64_t first = group * kPanelRows;
    const int64_t rows = std::min(kPanelRows, chunk.rows - first);
    const std::span<float> values(scratch + worker * kPanelRows * chunk.columns,
                                  static_cast<size_t>(rows * chunk.columns));
    widen(chunk.source_dtype,
          input_.bytes().subspan(static_cast<uint64_t>(first) * chunk.row_bytes,
                                 static_cast<uint64_t>(rows) * chunk.row_bytes),
          values);
    int64_t bad = find_unusable(values);
    apply(stored.change, values);
    if (bad < 0 && stored.change != Change::kNone) bad = find_unusable(values);
    if (bad >= 0) {
      const int64_t element = (chunk.first_row + first) * chunk.columns + bad;
      int64_t seen = first_bad.load();
      while (element < seen && !first_bad.compare_exchange_weak(seen, element)) {
      }
      return;
    }
    const MatrixForm& form = stored.form;
    const auto out = chunk.out.subspan(static_cast<uint64_t>(group) * group_bytes,
                                       rows_bytes(form, chunk.columns, {chunk.plane, 0, rows}));
    if (form.is_plain()) {
      std::memcpy(out.data(), values.data(), values.size_bytes());
    } else if (form.is_coded()) {
      quantise_affine_panels(form.coding, chunk.plane, stored.quantiser, values, rows,
                             chunk.columns, out);
    } else if (is_quantised(form.dtype)) {
      quantise_panels(form.dtype, stored.quantiser, values, rows, chunk.columns, out);
    } else {
      make_panels(form.dtype, values, rows, chunk.columns, out);
    }
  });

  const int64_t bad = first_bad.load();
  if (bad == INT64_MAX) return {};
  const int64_t row_in_chunk = bad / chunk.columns - chunk.first_row;
  float value = 0;
  const auto element_bytes = static_cast<uint64_t>(bits_of(chunk.source_dtype)) / 8;
  widen(chunk.source_dtype,
        input_.bytes().subspan(static_cast<uint64_t>(row_in_chunk) * chunk.row_bytes +
                                   static_cast<uint64_t>(bad % chunk.columns) * element_bytes,
                               element_bytes),
        std::span(&value, 1));
  return unusable_element(source, chunk.columns, bad, value);
}

Result<void> Converter::convert(const MatrixSource& source, const StoredForm& form,
                                const Sink& sink, const std::stop_token& stop) {
  const int64_t columns = source.ranges.front().tensor->columns();
  const std::optional<PlacedPlanes> planes = place_matrix(form.form, source.rows(), columns);
  PENSTOCK_CHECK(planes.has_value());  // the plan has placed it
  uint64_t position = 0;
  const auto pad_to = [&](uint64_t place) -> Result<void> {
    const std::vector<std::byte> zeros(place - std::exchange(position, place));
    return zeros.empty() ? Result<void>() : sink(zeros);
  };
  for (const CodedPlane plane : kCodedPlanes) {
    if (bytes_of(planes->sizes, plane) == 0) continue;
    PENSTOCK_TRY(pad_to(bytes_of(planes->at, plane)));
    PENSTOCK_TRY(convert_plane(source, form, plane, sink, stop));
    position += bytes_of(planes->sizes, plane);
  }
  return pad_to(planes->bytes);
}

Result<void> Converter::convert_plane(const MatrixSource& source, const StoredForm& form,
                                      CodedPlane plane, const Sink& sink,
                                      const std::stop_token& stop) {
  const CheckpointTensor& tensor = *source.ranges.front().tensor;
  const int64_t rows_all = source.rows();
  Chunk chunk{};
  chunk.plane = plane;
  chunk.columns = tensor.columns();
  chunk.source_dtype = PENSTOCK_TRY(Checkpoint::float_dtype(tensor));
  chunk.row_bytes = static_cast<uint64_t>(chunk.columns * bits_of(chunk.source_dtype) / 8);
  const int64_t padded = form.form.is_plain()
                             ? chunk.columns
                             : (chunk.columns + kGroupColumns - 1) / kGroupColumns * kGroupColumns;
  const int64_t rows_step = chunk_rows_of(padded);
  for (int64_t row = 0; row < rows_all; row += rows_step) {
    if (stop.stop_requested()) return Error{ErrorCode::kCancelled, "stopped"};
    chunk.first_row = row;
    chunk.rows = std::min(rows_step, rows_all - row);
    PENSTOCK_TRY(read_rows(source, row, chunk.rows, chunk.row_bytes));
    chunk.out = output_.bytes().first(rows_bytes(form.form, chunk.columns, {plane, 0, chunk.rows}));
    PENSTOCK_TRY(convert_chunk(source, form, chunk));
    PENSTOCK_TRY(sink(chunk.out));
  }
  return {};
}

}  // namespace penstock
