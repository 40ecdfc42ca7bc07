// Which pieces of a file are already on the disk, beside the file that is not whole yet.
//
// A line for the file (size, size of a piece, ETag), then a line per finished piece. A line is written
// when the bytes that it speaks of are durable; what is torn, unknown or does not fit is left out when
// it is read, since a piece too few costs time and nothing else. That the whole is right is the matter
// of its hash.
//
// Threads  one
// Errors   kIo, kOutOfMemory (disk full)
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

struct PieceMap {
  uint64_t bytes = 0, piece_bytes = 0;
  std::string etag;        // of the answers that the pieces came from; empty: there was none
  std::vector<bool> done;  // one per piece

  static PieceMap of(uint64_t bytes, uint64_t piece_bytes);
  uint64_t begin(size_t piece) const { return piece * piece_bytes; }
  uint64_t end(size_t piece) const;
  uint64_t bytes_done() const;
};

inline constexpr uint64_t kJournalBytesMax = 256 << 20;

// What a journal says of a file of `bytes` bytes; nothing is done where it is of another file, or none.
PieceMap parse_journal(std::string_view text, uint64_t bytes, uint64_t piece_bytes);

class RangeJournal {
 public:
  // A new one, with what `map` already has.
  static Result<RangeJournal> create(Storage& storage, const std::string& path,
                                     const PieceMap& map);

  // Appends and makes it durable. The pieces' bytes must be durable.
  Result<void> add(std::span<const size_t> pieces);

 private:
  explicit RangeJournal(std::unique_ptr<StorageFile> file) : file_(std::move(file)) {}
  Result<void> append(const std::string& text);

  std::unique_ptr<StorageFile> file_;
  uint64_t position_ = 0;
};

}  // namespace penstock
