// The journal of an unfinished pack: which pieces are durable, with their checksums.
//
// Pieces have one fixed order (resident tensors, then expert records), so the journal is a list of
// sums. A piece is entered only after its bytes were synced: what the journal says is on the disk,
// whatever happened after. Entries of 64 bytes carry a sum of their own, so a torn end is simply
// where the list stops.
//
//   entry    uint64 index, Hash128 first, Hash128 second, 8 zero bytes, Hash128 sum of these 48
//   entry 0  first: what the pack is made from and how (a key; another key: start over)
//
// Errors  kIo and kOutOfMemory from the storage.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "format/manifest.h"
#include "io/checksum.h"
#include "io/storage.h"

namespace penstock {

// The sums of one piece: of a tensor's stored bytes (the others unused), or of an expert's parts.
using PieceSums = std::array<Hash128, std::size(kPackedParts)>;

class Journal {
 public:
  // An empty journal on disk, synced.
  static Result<Journal> create(Storage& storage, const std::string& path, const Hash128& key);

  // Continues the one that is there. kNotFound: none, or of another key, or damaged at its start.
  static Result<Journal> resume(Storage& storage, const std::string& path, const Hash128& key);

  const std::vector<PieceSums>& pieces() const { return pieces_; }  // durable ones and entered ones

  // Remembers a finished piece; commit() makes it durable. Its bytes must be synced in between.
  void enter(const PieceSums& sums) { pieces_.push_back(sums); }
  Result<void> commit();

  // Forgets pieces from `count` on, on disk too: their bytes were found to be bad.
  Result<void> truncate(size_t count);

 private:
  Journal() = default;

  std::unique_ptr<StorageFile> file_;
  std::vector<PieceSums> pieces_;
  size_t pieces_durable_ = 0;
};

}  // namespace penstock
