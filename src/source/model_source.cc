#include "source/model_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "source/folder_source.h"
#include "source/gguf_source.h"

namespace penstock {
namespace {

constexpr size_t kOpenFilesMax = 16;
constexpr uint64_t kReadBytes = 4 << 20;

StoredMatrix moved(StoredMatrix matrix, const ExpertMatrices::Stride& stride, int64_t expert) {
  const auto e = static_cast<uint64_t>(expert);
  matrix.codes.offset += e * stride.codes;
  matrix.scales.offset += e * stride.scales;
  matrix.biases.offset += e * stride.biases;
  return matrix;
}

void change_values(ValueChange change, std::span<float> values) {
  if (change == ValueChange::kAddOne) {
    for (float& value : values) value += 1.0f;
  } else if (change == ValueChange::kMinusExp) {
    // In double, so that the rounded result does not depend on the library's last bit.
    for (float& value : values) value = static_cast<float>(-std::exp(static_cast<double>(value)));
  }
}

}  // namespace

std::string_view name_of(SourceFormat format) {
  switch (format) {
    case SourceFormat::kHuggingFace: return "Hugging Face";
    case SourceFormat::kMlx: return "MLX";
    case SourceFormat::kGguf: return "GGUF";
  }
  return "?";
}

StoredMatrix ExpertMatrices::of(int64_t expert) const {
  if (!single.empty()) return single[static_cast<size_t>(expert)];
  return moved(first, stride, expert);
}

ModelSource::ModelSource(Storage& storage, SourceParts parts)
    : storage_(&storage), parts_(std::move(parts)) {
  for (size_t i = 0; i < parts_.tensors.size(); ++i) by_name_[parts_.tensors[i].name] = i;
  RunningChecksum sum;
  for (const CheckpointFile& file : parts_.files) {
    const uint64_t numbers[] = {file.stat.bytes, static_cast<uint64_t>(file.stat.modified_ns),
                                file.header_sum.low, file.header_sum.high};
    sum.update(std::as_bytes(std::span(numbers)));
  }
  id_ = sum.value();
}

Result<ModelSource> ModelSource::open(Storage& storage, const std::string& path) {
  const bool is_folder = PENSTOCK_TRY(storage.is_directory(path));
  SourceParts parts = is_folder ? PENSTOCK_TRY(open_folder_source(storage, path))
                                : PENSTOCK_TRY(open_gguf_source(storage, path));
  return ModelSource(storage, std::move(parts));
}

const SourceTensor* ModelSource::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &parts_.tensors[found->second];
}

const std::string* ModelSource::find_text(std::string_view name) const {
  for (const SourceText& text : parts_.texts) {
    if (text.name == name) return &text.text;
  }
  return nullptr;
}

Result<const StorageFile*> ModelSource::file_of(uint32_t index) {
  const auto found = std::find_if(open_files_.begin(), open_files_.end(),
                                  [&](const OpenFile& open) { return open.index == index; });
  if (found != open_files_.end()) {
    std::rotate(found, found + 1, open_files_.end());
    return open_files_.back().file.get();
  }
  const CheckpointFile& wanted = parts_.files[index];
  std::unique_ptr<StorageFile> file = PENSTOCK_TRY(storage_->open(wanted.path, OpenMode::kRead));
  if (PENSTOCK_TRY(file->stat()) != wanted.stat) {
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: changed while it was being read; start again", wanted.path)};
  }
  if (open_files_.size() == kOpenFilesMax) open_files_.erase(open_files_.begin());
  open_files_.push_back({index, std::move(file)});
  return open_files_.back().file.get();
}

Result<void> ModelSource::read_bytes(uint32_t file, uint64_t offset, std::span<std::byte> target) {
  const StorageFile* opened = PENSTOCK_TRY(file_of(file));
  PENSTOCK_TRY(read_exactly(*opened, offset, target));
  // Half a terabyte read once would only push out what the machine needs.
  opened->drop_cached(offset, target.size());
  return {};
}

Result<void> ModelSource::read_rows(const StoredMatrix& matrix, int64_t first_row,
                                    std::span<float> values) {
  const auto columns = static_cast<size_t>(matrix.columns);
  const auto rows = static_cast<int64_t>(values.size() / columns);
  PENSTOCK_CHECK(values.size() % columns == 0 && first_row >= 0 && first_row + rows <= matrix.rows);
  const RowBytes bytes = row_bytes(matrix.coding, matrix.columns);
  const int64_t shared = rows_of_scales(matrix.coding);
  const auto scale_row = [&](int64_t row) { return row / shared; };
  const auto at_once = static_cast<int64_t>(std::max<uint64_t>(1, kReadBytes / bytes.codes));
  for (int64_t done = 0; done < rows; done += at_once) {
    const int64_t count = std::min(at_once, rows - done);
    const int64_t row = first_row + done;
    const int64_t scale_first = scale_row(row);
    const auto scale_rows = static_cast<uint64_t>(scale_row(row + count - 1) - scale_first + 1);
    const uint64_t codes_bytes = static_cast<uint64_t>(count) * bytes.codes;
    const uint64_t scales_bytes = scale_rows * bytes.scales;
    scratch_.resize(codes_bytes + scales_bytes + scale_rows * bytes.biases);
    const std::span<std::byte> codes = std::span(scratch_).first(codes_bytes);
    const std::span<std::byte> scales = std::span(scratch_).subspan(codes_bytes, scales_bytes);
    const std::span<std::byte> biases = std::span(scratch_).subspan(codes_bytes + scales_bytes);
    const auto fetch = [&](const Plane& plane, int64_t plane_row, std::span<std::byte> target) {
      if (target.empty()) return Result<void>();
      return read_bytes(plane.file,
                        plane.offset + static_cast<uint64_t>(plane_row) * plane.row_bytes, target);
    };
    PENSTOCK_TRY(fetch(matrix.codes, row, codes));
    PENSTOCK_TRY(fetch(matrix.scales, scale_first, scales));
    PENSTOCK_TRY(fetch(matrix.biases, scale_first, biases));
    for (int64_t i = 0; i < count; ++i) {
      const auto s = static_cast<uint64_t>(scale_row(row + i) - scale_first);
      decode_row(matrix.coding, codes.subspan(static_cast<uint64_t>(i) * bytes.codes, bytes.codes),
                 scales.subspan(s * bytes.scales, bytes.scales),
                 biases.subspan(s * bytes.biases, bytes.biases),
                 values.subspan(static_cast<size_t>(done + i) * columns, columns));
    }
  }
  return {};
}

Result<void> ModelSource::read_rows(const SourceTensor& tensor, int64_t first_row,
                                    std::span<float> values) {
  const auto columns = static_cast<size_t>(tensor.columns);
  PENSTOCK_CHECK(values.size() % columns == 0);
  int64_t row = first_row;
  std::span<float> rest = values;
  int64_t range_first = 0;
  for (const StoredRows& range : tensor.ranges) {
    const int64_t range_end = range_first + range.rows;
    if (row < range_end && !rest.empty()) {
      const int64_t count = std::min(range_end - row, static_cast<int64_t>(rest.size() / columns));
      const std::span<float> part = rest.first(static_cast<size_t>(count) * columns);
      const auto read = read_rows(range.matrix, range.first_row + row - range_first, part);
      if (!read) return read.error().with_context("tensor " + tensor.name);
      rest = rest.subspan(part.size());
      row += count;
    }
    range_first = range_end;
  }
  PENSTOCK_CHECK(rest.empty());
  if (!tensor.order.is_natural()) {
    std::vector<float> scratch;
    for (size_t at = 0; at < values.size(); at += columns) {
      const std::span<float> row_values = values.subspan(at, columns);
      scratch.assign(row_values.begin(), row_values.end());
      put_in_order(tensor.order, scratch, row_values);
    }
  }
  change_values(tensor.change, values);
  return {};
}

Result<void> ModelSource::check_unchanged() const {
  for (const CheckpointFile& file : parts_.files) {
    if (PENSTOCK_TRY(storage_->stat(file.path)) == file.stat) continue;
    return Error{ErrorCode::kCorrupt,
                 fmt::format("{}: changed while it was being read; start again", file.path)};
  }
  return {};
}

}  // namespace penstock
