// How often each expert of a model was used: what a cache knows when it starts again.
//
// The numbers are those that eviction goes by (store/eviction.h), decayed to the moment when they
// were taken. Kept in a small file, one per model: an engine that starts with it goes on as if it
// had not been ended.
//
//   ExpertUsage usage = PENSTOCK_TRY(load_usage(storage, path, model));
//   store.restore_usage(usage);
//   store.preload(most_used(usage));
//
// Errors  load_usage(): kNotFound; kUnsupported (another version of the file, or a file of another
//         model); kCorrupt; kIo. save_usage(): kIo, kOutOfMemory (disk full).
// See also docs/formats.md
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "io/checksum.h"
#include "io/storage.h"

namespace penstock {

struct ExpertId {
  int layer = 0;
  int expert = 0;

  bool operator==(const ExpertId&) const = default;
};

struct ExpertUsage {
  int num_layers = 0;
  int num_experts = 0;        // of a layer
  std::vector<float> counts;  // [layer][expert], none below 0

  // Last layers away, or new ones that were never used.
  void set_layers(int layers) {
    num_layers = layers;
    counts.resize(static_cast<size_t>(layers) * static_cast<size_t>(num_experts));
  }
};

// The experts that were used at all, most used first; equals by layer and number.
std::vector<ExpertId> most_used(const ExpertUsage& usage);

// What a file of usage belongs to.
struct UsageOwner {
  Hash128 model;  // names the exact content of the model's files
  int num_layers = 0;
  int num_experts = 0;
};

Result<ExpertUsage> load_usage(Storage& storage, const std::string& path, const UsageOwner& owner);
// All of it or nothing: written beside `path` and renamed. Its folder is made where missing.
Result<void> save_usage(Storage& storage, const std::string& path, const UsageOwner& owner,
                        const ExpertUsage& usage);

}  // namespace penstock
