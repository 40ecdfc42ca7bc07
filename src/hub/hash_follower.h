// Hashes a file on a thread of its own while it is written: follows the part at its front that is whole.
//
// Reads back what was written, mostly out of the page cache, so that what is verified is what the file
// system took.
//
// Threads  advance() and finish() from one thread
// Errors   start(): kOutOfMemory (no thread). finish(): kIo, kCorrupt of reading back; kCancelled
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "base/result.h"
#include "hub/hash.h"
#include "io/storage.h"

namespace penstock {

class HashFollower {
 public:
  // `file` must outlive it.
  static Result<std::unique_ptr<HashFollower>> start(const StorageFile& file, BlobHash::Kind kind,
                                                     uint64_t bytes);
  ~HashFollower() = default;
  HashFollower(const HashFollower&) = delete;
  HashFollower& operator=(const HashFollower&) = delete;

  // The first `bytes` are written. Never less than before.
  void advance(uint64_t bytes);

  // How far it is; for progress at the end.
  uint64_t hashed_bytes() const;
  bool is_finished() const;
  // The digest. Everything must have been told, and is_finished().
  Result<std::string> finish();

 private:
  HashFollower(const StorageFile& file, BlobHash::Kind kind, uint64_t bytes)
      : file_(file), bytes_(bytes), hash_(kind, bytes) {}
  void run(const std::stop_token& quit);

  const StorageFile& file_;
  uint64_t bytes_;
  BlobHash hash_;  // of the thread alone, until it is finished
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  uint64_t ready_ = 0, hashed_ = 0;  // guarded by mutex_
  bool finished_ = false;            // guarded by mutex_
  Result<void> failure_;             // guarded by mutex_
  std::jthread thread_;              // last: it ends before the others go
};

}  // namespace penstock
