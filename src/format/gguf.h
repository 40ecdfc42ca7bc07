// Reader of GGUF files, version 3: one file, or the shards of a split one.
//
// Nothing of a file is believed before it was compared with the file's size: counts and lengths
// before anything is allocated for them, dimensions and bytes in checked arithmetic, tensors in
// order of their offsets without overlap, hole or trailing bytes. So a GgufTensor is a promise:
// `bytes` bytes at `offset` are in its file, whole blocks in every row.
//
//   const GgufModel model = PENSTOCK_TRY(GgufModel::open(storage, "m-00001-of-00003.gguf"));
//   const GgufTensor* tensor = model.find("token_embd.weight");
//
// Limits   Keys up to 1,024 bytes, names up to 512, without control characters; a string 16 MiB, a
//          list 512 MiB, of strings or numbers; 1 to 4 dimensions of at least 1; an alignment that
//          is a power of two up to 1 MiB; 2^20 tensors and 2^16 keys.
// Memory   The metadata of a model of 248,000 tokens is 10 MB; a header that states more than the
//          file can hold allocates nothing.
// Threads  const functions from any thread.
// Errors   kCorrupt for everything that is not as above, saying what the file looks like when it is
//          something else; kUnsupported for another version or an unknown type; kNotFound for a
//          missing shard; kIo.
// Source   The published description of GGUF and its naming of split files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "format/gguf_metadata.h"
#include "io/checksum.h"
#include "io/storage.h"
#include "quant/block_type.h"

namespace penstock {

struct GgufTensor {
  std::string name;
  BlockType type = BlockType::kF32;
  std::vector<int64_t> shape;  // slowest first, columns last (the file has them fastest first)
  uint64_t offset = 0;         // in the file
  uint64_t bytes = 0;
  size_t shard = 0;  // index into GgufModel::shards()

  // Seen as a matrix: the last dimension, and the product of the others.
  int64_t columns() const { return shape.back(); }
  int64_t rows() const;
};

// One file, or one shard.
struct GgufHeader {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // by offset
  uint64_t alignment = 32;
  Hash128 sum;  // of all bytes before the data
};

// The file is read from its start, as far as its header goes.
Result<GgufHeader> read_gguf_header(const StorageFile& file, uint64_t file_bytes);

struct GgufShard {
  std::string path;
  FileStat stat;
  Hash128 header_sum;
};

class GgufModel {
 public:
  // `path`: the file, or the first shard.
  static Result<GgufModel> open(Storage& storage, const std::string& path);
  GgufModel(GgufModel&&) = default;
  GgufModel& operator=(GgufModel&&) = default;

  const std::string& path() const { return shards_.front().path; }
  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<GgufShard>& shards() const { return shards_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // by name
  const GgufTensor* find(std::string_view name) const;

 private:
  GgufModel() = default;
  Result<void> open_rest(Storage& storage, const std::string& path);
  Result<void> add_shard(Storage& storage, const std::string& path);
  Result<void> index_tensors();

  GgufMetadata metadata_;
  std::vector<GgufShard> shards_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;  // views into tensors_, hence no copies
};

// NAME-00002-of-00005.gguf: its parts. False for any other name.
struct ShardName {
  std::string stem;   // with folder
  int64_t index = 0;  // from 1
  int64_t count = 0;
};
bool parse_shard_name(std::string_view path, ShardName& name);
std::string shard_path(const ShardName& name);

}  // namespace penstock
