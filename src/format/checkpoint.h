// Checkpoint: a Hugging Face folder, opened and checked.
//
// One model.safetensors, or shards with model.safetensors.index.json: then the index decides which
// shard a tensor comes from. What it does not name (superseded copies, files beside the shards) is
// left out and told by notes(); a shard that is missing, or truncated, or whose tensors lie in another
// one than the index says, is found before any work. A name of the index that no shard has is an error
// only if somebody needs the tensor: where_missing(). Names and shapes are the file's; what they mean
// is the packer's matter.
//
// Threads  One thread: files are opened when needed, a few at a time.
// Errors   kNotFound: config, shard. kCorrupt: a tensor lies in another shard than the index says,
//          shards cut short, or a file changed since opening (check_unchanged). kUnsupported: no safetensors in the
//          folder, or a dtype that cannot be widened to f32. Messages name the file and the tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "format/safetensors.h"
#include "io/storage.h"

namespace penstock {

struct CheckpointTensor {
  TensorInfo info;
  size_t shard = 0;  // index into Checkpoint::shards()

  // Seen as a matrix: the last dimension, and the product of the others (1 for a vector).
  int64_t columns() const;
  int64_t rows() const;
};

struct CheckpointShard {
  std::string name;  // without folder
  FileStat stat;
  Hash128 header_sum;
};

// f32 from the bytes of F32, F16 or BF16 elements: exact. floats.size() elements.
void widen(DType dtype, std::span<const std::byte> bytes, std::span<float> floats);

class Checkpoint {
 public:
  static Result<Checkpoint> open(Storage& storage, const std::string& directory);

  const std::string& directory() const { return directory_; }
  const Json& config() const { return config_; }
  const std::string& config_text() const { return config_text_; }
  const std::vector<CheckpointShard>& shards() const { return shards_; }
  const std::vector<CheckpointTensor>& tensors() const { return tensors_; }  // by name
  const CheckpointTensor* find(std::string_view name) const;
  std::string path_of(std::string_view file) const;
  // What lies in the folder and is not used, a sentence each.
  const std::vector<std::string>& notes() const { return notes_; }
  // For the message about a tensor that find() does not find: what the index says of it, or nothing.
  std::string where_missing(std::string_view name) const;

  // Bytes of the stored tensor, from `offset` in it. Not kept in the page cache.
  Result<void> read(const CheckpointTensor& tensor, uint64_t offset, std::span<std::byte> target);

  // Rows [first_row, first_row + floats.size() / columns()), widened.
  Result<void> read_rows(const CheckpointTensor& tensor, int64_t first_row,
                         std::span<float> floats);

  // kCorrupt when a shard or config.json is not the file any more that it was when opened.
  Result<void> check_unchanged() const;

  // kUnsupported, with what to do, for a tensor that cannot be widened.
  static Result<DType> float_dtype(const CheckpointTensor& tensor);

 private:
  using TensorNames = std::set<std::string, std::less<>>;
  Result<void> open_sharded();
  Result<void> add_shard(const std::string& name);
  Result<void> add_indexed_shard(const std::string& name, const TensorNames& names);
  Result<void> check_absent() const;
  Result<void> note_other_files();
  void index_tensors();
  Result<const StorageFile*> file_of(size_t shard);

  Storage* storage_ = nullptr;
  std::string directory_;
  Json config_;
  std::string config_text_;
  FileStat config_stat_;
  std::vector<CheckpointShard> shards_;
  std::vector<CheckpointTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
  std::vector<std::string> notes_;
  std::map<std::string, std::string, std::less<>> absent_;    // name of the index -> its shard
  std::map<std::string, std::string, std::less<>> left_out_;  // tensor -> a shard that has it

  struct OpenShard {
    size_t shard;
    std::unique_ptr<StorageFile> file;
  };
  std::vector<OpenShard> open_shards_;  // most recent last
};

}  // namespace penstock
