// Container: a packed model on disk, opened and checked.
//
// A directory: penstock.json (format/manifest.h), resident.bin (weights every token needs),
// experts.bin (one record per expert), their checksums, and the source's small files. Opening reads
// the manifest and compares every size; no weight is read until load_resident() or the expert store
// asks. What is read is verified before it is handed out.
//
//   const Container model = PENSTOCK_TRY(Container::open(posix_storage(), "qwen.penstock"));
//   PENSTOCK_TRY(model.load_resident(memory.bytes(), {}));
//   const ResidentTensor* head = model.find("lm_head");      // memory + head->offset
//
// Threads  const calls from several threads.
// Memory   The caller owns the target of load_resident(); the Storage must outlive the Container.
// Errors   kNotFound: no such directory, file or manifest. kCorrupt: sizes or sums differ.
//          kUnsupported: another format version. kIo: the disk refused twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "format/manifest.h"
#include "io/checksum.h"
#include "io/storage.h"

namespace penstock {

class Container {
 public:
  static Result<Container> open(Storage& storage, const std::string& directory);

  const std::string& directory() const { return directory_; }
  const Manifest& manifest() const { return manifest_; }
  const Json& config() const { return manifest_.config; }  // for parse_model_config

  // Goes into every checksum of this model's bytes. Follows from the source's headers and samples
  // of its weights and from the options.
  uint64_t model_id() const { return manifest_.model_id; }

  // Names the exact content of all files: what a cache on disk should be keyed by. As text: 32 hex
  // digits.
  const Hash128& id() const { return content_; }
  std::string id_text() const;

  const std::vector<ResidentTensor>& tensors() const { return manifest_.tensors; }
  const ResidentTensor* find(std::string_view name) const;
  const ExpertParts& experts() const { return manifest_.experts; }

  std::string resident_path() const { return path_of(kResidentName); }
  std::string experts_path() const { return path_of(kExpertsName); }
  std::string path_of(std::string_view name) const;
  uint64_t resident_bytes() const { return manifest_.resident_bytes; }

  // "tensor lm_head": what lies at an offset of resident.bin, for messages.
  std::string place_of(uint64_t resident_offset) const;

  // Reads resident.bin into `target` (exactly resident_bytes(); aligned to 4096 for direct reads,
  // else the page cache is used and dropped), verifying each block. A block that cannot be read or
  // does not match is read once more. `progress` may be empty.
  Result<void> load_resident(
      std::span<std::byte> target,
      const std::function<void(uint64_t done, uint64_t total)>& progress) const;

  // [layer][expert][part] flat: ExpertParts::sum_index(layer * num_experts + expert, part).
  Result<std::vector<Hash128>> load_expert_checksums() const;

  // [block] of resident.bin: block_checksum(model_id, block, bytes).
  Result<std::vector<Hash128>> load_resident_checksums() const;

  // tokenizer.json, chat_template.jinja...: verified. kNotFound when the source had none.
  Result<std::string> text_file(std::string_view name) const;

 private:
  Container(Storage& storage, std::string directory, Manifest manifest, Hash128 content);

  Result<void> check_files() const;
  Result<std::vector<Hash128>> load_sums(std::string_view name, uint64_t count) const;
  Result<void> load_block(const StorageFile& file, uint64_t block, std::span<std::byte> target,
                          const Hash128& expected) const;
  Storage* storage_;
  std::string directory_;
  Manifest manifest_;
  Hash128 content_;
  std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace penstock
