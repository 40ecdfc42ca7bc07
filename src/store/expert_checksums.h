// Checksums of experts whose files have none: made when a part is first read, kept in a small file, and
// compared from then on.
//
// They tell that bytes are no longer what they were at the first read: a disk that decays, a file that
// was written over in place. Whether the first read was right they cannot tell.
//
//   KeptChecksums kept = PENSTOCK_TRY(load_checksums(storage, path, model));
//   learn_checksums(kept, table);                                  // before the store is made
//   ...
//   PENSTOCK_TRY(keep_checksums(storage, path, model, store.table(), kept));
//
// Errors  load_checksums(): kNotFound; kUnsupported (another version, another model); kCorrupt; kIo.
//         save_checksums(), keep_checksums(): kIo, kOutOfMemory (disk full).
// See also docs/formats.md
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "io/checksum.h"
#include "io/storage.h"
#include "store/expert_table.h"

namespace penstock {

struct KeptChecksums {
  std::vector<std::vector<Hash128>> layers;  // [layer][expert * parts + part]; zero: not known
};

// model: names the files as they are now.
Result<KeptChecksums> load_checksums(Storage& storage, const std::string& path,
                                     const Hash128& model);
// All of it or nothing: written beside `path` and renamed. Its folder is made where missing.
Result<void> save_checksums(Storage& storage, const std::string& path, const Hash128& model,
                            const KeptChecksums& kept);

// The table learns from now on, and knows what was kept of layers that have as many parts.
void learn_checksums(const KeptChecksums& kept, ExpertTable& table);

// What the table knows replaces what was kept of its layers; that of further layers stays.
void remember_checksums(const ExpertTable& table, KeptChecksums& kept);

// What the table knows, and what others have kept at `path` since `kept` was loaded from there: of a
// part that both know, ours. Runs that end together take turns.
Result<void> keep_checksums(Storage& storage, const std::string& path, const Hash128& model,
                            const ExpertTable& table, KeptChecksums& kept);

}  // namespace penstock
