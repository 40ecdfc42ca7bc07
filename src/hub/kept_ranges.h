// What was read of files by ranges, kept on the disk, so that a later run does not ask for it again.
//
//   "PSRANGES", the 40 digits of a commit; then records:
//   uint64 file, uint64 offset, uint64 length, the bytes, and a checksum of these (low, then high)
//
// A record counts when its sum is right. Where one is torn or damaged, it and what follows are left out
// and written over: that costs requests and nothing else, for which reason nothing is synced here. The
// sums guard against faults and not against a forger: what counts in the end is the hash of the file.
//
// Threads  one
// Memory   the file, while it is opened
// Errors   kIo, kOutOfMemory (disk full)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

struct KeptRange {
  uint64_t file = 0;  // a number that is its content's
  uint64_t offset = 0;
  std::span<const std::byte> bytes;
};

inline constexpr uint64_t kKeptBytesMax = 256 << 20;

// Tells of every record that counts, with whatever file and offset it has; the bytes of `text` up to
// the end of the last one, 0: it is of another commit, or something else.
uint64_t parse_kept_ranges(std::string_view text, std::string_view commit,
                           const std::function<void(const KeptRange&)>& take);

class KeptRanges {
 public:
  // With what is there already, of which `take` is told.
  static Result<KeptRanges> open(Storage& storage, const std::string& path,
                                 const std::string& commit,
                                 const std::function<void(const KeptRange&)>& take);

  // What would make the file larger than kKeptBytesMax is not kept.
  Result<void> add(std::span<const KeptRange> ranges);

 private:
  explicit KeptRanges(std::unique_ptr<StorageFile> file) : file_(std::move(file)) {}
  Result<void> append(const std::string& text);

  std::unique_ptr<StorageFile> file_;
  uint64_t position_ = 0;
};

}  // namespace penstock
