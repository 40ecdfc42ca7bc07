// Reader and writer of .safetensors files.
//
// The header (8 bytes of length, then JSON) is checked completely before a single tensor is
// believed: tensors lie back to back without hole or overlap and end exactly at the end of the
// file, each one's bytes follow from dtype and shape in checked arithmetic, no name twice. So a
// TensorInfo is a promise: `bytes` bytes at `offset` are in the file.
//
// Limits   Header at most 100 MB; names up to 512 bytes without control characters; at most 8
//          dimensions. An empty dimension is legal here: who uses the tensor checks its shape.
// Threads  A SafetensorsFile may be read from several threads.
// Errors   kCorrupt for everything that is not as above, saying what the file looks like when it is
//          something else; kUnsupported for a dtype that we cannot size; kIo.
// Source   The format's published description (safetensors, 2022 and later).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/result.h"
#include "io/checksum.h"
#include "io/output_file.h"
#include "io/storage.h"

namespace penstock {

struct TensorInfo {
  std::string name;
  std::string type;  // as written: "BF16", "F8_E4M3", "I32"
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;

  // F32, F16 and BF16: what can be widened to f32. Nothing for other types.
  std::optional<DType> float_dtype() const;
};

std::string shape_text(std::span<const int64_t> shape);  // [2, 3]

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // by offset
  std::vector<std::pair<std::string, std::string>> metadata;
};

// `header`: the JSON alone. `what` names the file.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view header, uint64_t file_bytes,
                                                   const std::string& what);

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(Storage& storage, const std::string& path);
  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile& operator=(SafetensorsFile&&) = default;

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const SafetensorsHeader& header() const { return header_; }
  const Hash128& header_sum() const { return header_sum_; }
  const FileStat& stat() const { return stat_; }  // when it was opened
  const TensorInfo* find(std::string_view name) const;

  // The whole tensor. kNotFound when there is none, kCorrupt when it is of another type; T is
  // float, int32_t or uint8_t. For test data and small tensors: the size is the file's.
  template <class T>
  Result<std::vector<T>> read(std::string_view name) const;

 private:
  SafetensorsFile() = default;
  Result<std::pair<const TensorInfo*, std::unique_ptr<StorageFile>>> locate(
      std::string_view name, std::string_view type) const;

  Storage* storage_ = nullptr;
  std::string path_;
  FileStat stat_;
  SafetensorsHeader header_;
  Hash128 header_sum_;
  std::unordered_map<std::string_view, size_t> by_name_;  // views into header_, hence no copies
};

// Writes a file tensor after tensor, in the order planned, so that no tensor need be in memory as a
// whole. The file has its name only after finish(); what else a path may be: io/output_file.h.
//
//   SafetensorsWriter out = PENSTOCK_TRY(SafetensorsWriter::create(storage, path, plan, {}));
//   PENSTOCK_TRY(out.append(std::as_bytes(std::span(logits))));
//   PENSTOCK_TRY(out.finish());
class SafetensorsWriter {
 public:
  struct Plan {
    std::string name;
    std::string type;
    std::vector<int64_t> shape;
  };

  static Result<SafetensorsWriter> create(
      Storage& storage, const std::string& path, const std::vector<Plan>& tensors,
      const std::vector<std::pair<std::string, std::string>>& metadata);

  // The next bytes of the data; tensors may be cut anywhere.
  Result<void> append(std::span<const std::byte> bytes);

  // Checks that all planned bytes came, makes them durable and gives the file its name.
  Result<void> finish();

  uint64_t file_bytes() const { return end_; }
  Hash128 sum() const { return sum_.value(); }  // of the whole file, after finish()

 private:
  explicit SafetensorsWriter(OutputFile file) : file_(std::move(file)) {}

  OutputFile file_;
  RunningChecksum sum_;
  uint64_t position_ = 0;
  uint64_t end_ = 0;
};

}  // namespace penstock
