// A file that somebody asked for by its path: whole or not there, and nothing else destroyed.
//
// A regular file, or a name that is free, gets its content when all of it is written: until then it
// is PATH.partial, and what was there before stays. A link is followed: its target is what was
// meant. A pipe or a device cannot be replaced by a file, so it is written to; directories, disks
// and sockets are refused.
//
//   OutputFile out = PENSTOCK_TRY(OutputFile::create(storage, path));
//   PENSTOCK_TRY(out.append(bytes));
//   PENSTOCK_TRY(out.finish());        // without it, nothing is left behind
//
// Threads  one
// Errors   create(): kInvalidArgument for what may not be written to, kIo, also where another
//          program is writing the same file. append(), finish(): kIo, kOutOfMemory (disk full)
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

class OutputFile {
 public:
  static Result<OutputFile> create(Storage& storage, const std::string& path);
  ~OutputFile();
  OutputFile(OutputFile&&) noexcept = default;
  OutputFile& operator=(OutputFile&&) = delete;

  Result<void> append(std::span<const std::byte> bytes);

  // Makes it durable and gives it its name.
  Result<void> finish();

 private:
  friend Result<void> write_output(Storage&, const std::string&, std::span<const std::byte>);

  OutputFile() = default;
  static Result<OutputFile> create(Storage& storage, const std::string& path,
                                   std::chrono::milliseconds wait_at_most);

  Storage* storage_ = nullptr;
  std::string path_;     // where links lead
  std::string partial_;  // empty: a stream
  std::unique_ptr<Storage::Lock> lock_;
  std::unique_ptr<StorageFile> file_;  // null: finished, or moved away
  uint64_t position_ = 0;
};

// Whether create() would work, for a file that is written at the end of long work. Leaves nothing.
Result<void> check_output(Storage& storage, const std::string& path);

// All of it at once. Another that is writing the same file is waited for, ten seconds at most: the
// last one's content stays.
Result<void> write_output(Storage& storage, const std::string& path,
                          std::span<const std::byte> bytes);

}  // namespace penstock
