// Any bytes as a folder's config.json and model.safetensors (the first byte says how they are
// shared out), in the dialects of Hugging Face, FP8 and MLX: refused with a sentence, or every
// plane of every matrix lies in its file and every tensor can be read.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "source/model_source.h"
#include "support/sim_storage.h"

namespace {

using namespace penstock;

constexpr uint64_t kElementsMax = 1 << 16;

void store(SimStorage& disk, const std::string& path, std::string_view bytes) {
  disk.open(path, OpenMode::kCreate).value()->write(0, std::as_bytes(std::span(bytes))).value();
}

void check_inside(const StoredMatrix& matrix, uint64_t file_bytes) {
  const RowBytes bytes = row_bytes(matrix.coding, matrix.columns);
  const auto rows = static_cast<uint64_t>(matrix.rows);
  const bool is_fp8 = matrix.coding.kind == Coding::Kind::kFp8;
  const uint64_t scale_rows = is_fp8 ? (rows + 127) / 128 : rows;
  PENSTOCK_CHECK(matrix.codes.offset + rows * bytes.codes <= file_bytes);
  PENSTOCK_CHECK(matrix.scales.offset + scale_rows * bytes.scales <= file_bytes);
  PENSTOCK_CHECK(matrix.biases.offset + scale_rows * bytes.biases <= file_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t cut = (static_cast<size_t>(data[0]) << 8 | data[1]) % (size - 1);
  SimStorage disk;
  disk.make_directory("/m").value();
  store(disk, "/m/config.json", all.substr(2, cut));
  store(disk, "/m/model.safetensors", all.substr(std::min(size, cut + 2)));
  Result<ModelSource> source = ModelSource::open(disk, "/m");
  if (!source) {
    for (const char c : source.error().message)
      PENSTOCK_CHECK(static_cast<unsigned char>(c) >= ' ');
    return 0;
  }
  const uint64_t file_bytes = source->files().front().stat.bytes;
  for (const SourceTensor& tensor : source->tensors()) {
    int64_t rows = 0;
    for (const StoredRows& range : tensor.ranges) {
      check_inside(range.matrix, file_bytes);
      PENSTOCK_CHECK(range.first_row + range.rows <= range.matrix.rows);
      rows += range.rows;
    }
    PENSTOCK_CHECK(rows == tensor.rows);
    const auto elements =
        static_cast<uint64_t>(tensor.rows) * static_cast<uint64_t>(tensor.columns);
    if (elements > kElementsMax) continue;
    std::vector<float> values(elements);
    PENSTOCK_CHECK(source->read_rows(tensor, 0, values).has_value());
  }
  for (const LayerExperts& layer : source->experts()) {
    for (const ExpertMatrices& part : layer.parts) {
      check_inside(part.of(0), file_bytes);
      check_inside(part.of(source->config().num_experts - 1), file_bytes);
    }
  }
  return 0;
}
