// What a pack is made from: the plan of the new files and the bytes of each piece, whatever the
// checkpoint is.
//
// Two kinds: floats, which are stored as floats or quantised (checkpoint_input.h), and checkpoints that
// are quantised already, whose codes are laid out anew (source_input.h). The packer (pack.cc) knows
// about pieces, places and the disk only.
//
// Threads  one; making bytes uses threads of its own
// Memory   a few chunks of rows, whatever the size of the model
// Errors   kCorrupt, kUnsupported, kIo of the source, naming it; kCancelled
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "format/manifest.h"
#include "io/checksum.h"
#include "model/config.h"
#include "pack/pack.h"
#include "pack/plan.h"

namespace penstock {

// What was asked for, before anything is known of the source.
inline StoredTypes stored_types(const PackOptions& options) {
  StoredTypes types = {options.experts, options.resident, options.without_prediction,
                       options.quantiser};
  types.down = options.down;
  types.target_bytes = options.target_bytes;
  if (types.target_bytes) {
    types.experts = DType::kQ8;  // that widths and sources are judged for, until layers have theirs
    types.down = std::nullopt;
  }
  return types;
}

// The stored bytes of a tensor, in order.
using ByteSink = std::function<Result<void>(std::span<const std::byte>)>;

class PackInput {
 public:
  virtual ~PackInput() = default;

  virtual const std::vector<ResidentTensor>& resident() const = 0;
  virtual const ExpertParts& experts() const = 0;
  virtual const ModelConfig& config() const = 0;  // of what is packed
  virtual const StoredTypes& types() const = 0;
  virtual std::vector<SourceFile> sources() const = 0;
  // For who consumes the source: the paths of these files; which of them, ascending, a piece is made
  // from, or keep_tensors() reads; and what of them no piece is made from, a sentence each.
  virtual std::vector<std::string> source_paths() const = 0;
  virtual std::vector<uint32_t> files_of_resident(size_t index) const = 0;
  virtual std::vector<uint32_t> files_of_expert(int64_t layer, int64_t expert) const = 0;
  virtual std::vector<uint32_t> files_of_kept() const = 0;
  virtual std::vector<std::string> left_out() const = 0;
  // What of the source is left out or not used, a sentence each.
  virtual const std::vector<std::string>& notes() const = 0;
  // For identities: who the model is, and which very files it is made from.
  virtual uint64_t model_id() const = 0;
  virtual Hash128 pack_key() const = 0;

  virtual Result<void> make_resident(size_t index, const ByteSink& sink,
                                     const std::stop_token& stop) = 0;
  // out: the payload of a part.
  virtual Result<void> make_part(int64_t layer, int64_t expert, PackedPart part,
                                 std::span<std::byte> out, const std::stop_token& stop) = 0;
  virtual uint64_t bytes_read() const = 0;

  // Texts, and what else is kept beside the weights: `add` one after the other; bytes of all.
  using AddFile =
      std::function<Result<void>(std::string_view name, std::span<const std::byte> bytes)>;
  virtual Result<void> add_files(const AddFile& add) = 0;
  virtual uint64_t file_bytes() const = 0;
  // Tensors that are kept and not used, as a file in `directory`; listed in `manifest`.
  virtual Result<void> keep_tensors(const std::string& directory, Manifest& manifest,
                                    const std::stop_token& stop) = 0;

  // kCorrupt when a file is not the one any more that it was when opened.
  virtual Result<void> check_unchanged() const = 0;

  static std::vector<uint32_t> in_order(std::vector<uint32_t> files) {
    std::ranges::sort(files);
    files.erase(std::unique(files.begin(), files.end()), files.end());
    return files;
  }

  uint64_t resident_bytes() const {
    const std::vector<ResidentTensor>& all = resident();
    return all.empty() ? 0 : align_file(all.back().offset + all.back().bytes);
  }
};

// Of whatever kind the source is.
Result<std::unique_ptr<PackInput>> open_pack_input(Storage& storage, const PackOptions& options,
                                                   const std::stop_token& stop);

struct WorkspaceOptions;
WorkspaceOptions workspace_options_of(const PackInput& input, const std::string& target);

}  // namespace penstock
