// ModelSource: any checkpoint we can read, opened, checked and seen in normal form.
//
// A Hugging Face folder in BF16, F16, F32 or FP8, an MLX folder, a GGUF file or its first shard.
// Each has its own names, order of heads, fusions and shifts of norms; here they are one. Opening
// looks at every tensor's presence, shape and type and that none is left over, and reads no weight.
//
//   ModelSource source = PENSTOCK_TRY(ModelSource::open(storage, path));
//   for (const SourceTensor& tensor : source.tensors()) {
//     PENSTOCK_TRY(source.read_rows(tensor, row, floats));   // decoded, in normal order
//   }
//   const StoredMatrix up = source.experts()[layer][ExpertPart::kUp].of(expert);   // where it lies
//
// Threads  One thread: files are opened when needed, a few at a time.
// Errors   kUnsupported: another architecture, or a way of quantising that is not read, by the name
//          the file gives it, before any weight is looked at. kNotFound, kCorrupt: what is missing
//          or does not fit, by file, tensor or key; a file that changed since it was opened.
// Source   docs/formats.md, "Sources", "GGUF", "Normal form"
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "io/checksum.h"
#include "io/storage.h"
#include "model/config.h"
#include "source/source_tensor.h"

namespace penstock {

enum class SourceFormat : uint8_t { kHuggingFace, kMlx, kGguf };
std::string_view name_of(SourceFormat format);

struct CheckpointFile {
  std::string name() const { return path.substr(path.rfind('/') + 1); }

  std::string path;
  FileStat stat;
  Hash128 header_sum;  // of the header: says which file it is without reading its weights
};

// A text that the model came with, under the name it has in a Hugging Face folder.
struct SourceText {
  std::string
      name;  // tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json
  std::string text;
};

// What a reader of one format finds out.
struct SourceParts {
  SourceFormat format = SourceFormat::kHuggingFace;
  std::string path;
  ModelConfig config;  // mtp_num_hidden_layers: 1 where a whole prediction block is there
  std::vector<CheckpointFile> files;
  std::vector<SourceTensor> tensors;  // resident, in the order of the forward pass
  std::vector<LayerExperts> experts;  // per layer; that of a prediction block last
  std::vector<SourceText> texts;
  std::vector<std::string>
      skipped;  // tensors that are understood and not used: vision, a second head
};

class ModelSource {
 public:
  static Result<ModelSource> open(Storage& storage, const std::string& path);

  // Of parts that somebody put together.
  ModelSource(Storage& storage, SourceParts parts);
  ModelSource(ModelSource&&) = default;
  ModelSource& operator=(ModelSource&&) = default;

  SourceFormat format() const { return parts_.format; }
  const std::string& path() const { return parts_.path; }
  const ModelConfig& config() const { return parts_.config; }
  const std::vector<CheckpointFile>& files() const { return parts_.files; }
  const std::vector<SourceTensor>& tensors() const { return parts_.tensors; }
  const std::vector<LayerExperts>& experts() const { return parts_.experts; }
  const std::vector<SourceText>& texts() const { return parts_.texts; }
  const std::vector<std::string>& skipped() const { return parts_.skipped; }
  const SourceTensor* find(std::string_view name) const;
  const std::string* find_text(std::string_view name) const;

  // Once it has been used: a tokenizer's text is many megabytes.
  void forget_text(std::string_view name) {
    std::erase_if(parts_.texts, [&](const SourceText& text) { return text.name == name; });
  }

  // Names the files as they are now: sizes, times and headers. Weights are not read for it.
  Hash128 id() const { return id_; }

  // Rows [first_row, first_row + values.size() / columns), decoded, in normal order, changed as the
  // tensor says. values.size() is a multiple of columns.
  Result<void> read_rows(const SourceTensor& tensor, int64_t first_row, std::span<float> values);
  Result<void> read_rows(const StoredMatrix& matrix, int64_t first_row, std::span<float> values);

  // Bytes as they are in a file.
  Result<void> read_bytes(uint32_t file, uint64_t offset, std::span<std::byte> target);

  // kCorrupt when a file is not the one any more that it was when opened.
  Result<void> check_unchanged() const;

 private:
  Result<const StorageFile*> file_of(uint32_t index);

  Storage* storage_;
  SourceParts parts_;
  Hash128 id_;
  std::unordered_map<std::string, size_t> by_name_;

  struct OpenFile {
    uint32_t index;
    std::unique_ptr<StorageFile> file;
  };
  std::vector<OpenFile> open_files_;  // most recent last
  std::vector<std::byte> scratch_;
};

}  // namespace penstock
