#include "source/model_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quant/block_decode.h"
#include "quant/fp8.h"
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

// Blocks of columns of one row from the stored order to the normal one.
void put_back(const ColumnOrder& order, std::span<float> row, std::vector<float>& scratch) {
  scratch.assign(row.begin(), row.end());
  const auto width = static_cast<size_t>(order.width);
  for (size_t b = 0; b < order.stored.size(); ++b) {
    const auto from = scratch.begin() + static_cast<int64_t>(order.stored[b] * order.width);
    std::copy_n(from, width, row.begin() + static_cast<int64_t>(b * width));
  }
}

void decode_row(const StoredMatrix& matrix, std::span<const std::byte> codes,
                std::span<const std::byte> scales, std::span<const std::byte> biases,
                std::span<float> values) {
  const Coding& coding = matrix.coding;
  switch (coding.kind) {
    case Coding::Kind::kBlocks: return decode_blocks(coding.block, codes, values);
    case Coding::Kind::kAffine:
      return decode_affine_row(coding.affine, codes, scales, biases, values);
    case Coding::Kind::kMlxMxfp4: return decode_mlx_mxfp4_row(codes, scales, values);
    case Coding::Kind::kFp8: return decode_fp8_row(codes, coding.scale, scales, values);
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
  const bool is_fp8 = matrix.coding.kind == Coding::Kind::kFp8;
  // FP8: a row of scales is for 128 rows.
  const auto scale_row = [&](int64_t row) { return is_fp8 ? row / kFp8Square : row; };
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
      decode_row(matrix, codes.subspan(static_cast<uint64_t>(i) * bytes.codes, bytes.codes),
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
      put_back(tensor.order, values.subspan(at, columns), scratch);
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
