// The real disk, made worse: a share of the reads of some files fails with EIO, and a share brings one
// wrong bit. For the program as a whole under load (bench/server_soak.py); unit tests have SimStorage.
//
// Writes, names and everything else pass through; at one of them the program may be killed. A read that is tried again is another draw. Files
// that may fail have no descriptor, so that no reader goes past this.
//
// Threads  as Storage; one lock around the draw
// Errors   as Storage
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "io/held_bytes.h"
#include "io/storage.h"

namespace penstock {

struct FaultRates {
  double errors = 0;  // of reads
  double flips = 0;
  std::vector<std::string> path_parts;  // files whose path has one of these
  uint64_t seed = 1;
  // The program is killed (SIGKILL) instead of making its n-th call that changes the disk, counted
  // from 1: open to create, write, sync, rename, remove. 0: never.
  uint64_t killed_at = 0;
  // The disk seems to have so much room beside what there is; 0: as much as it has.
  uint64_t free_bytes = 0;
};

class FaultyStorage final : public Storage, public HeldRoom {
 public:
  FaultyStorage(Storage& real, FaultRates rates);
  ~FaultyStorage() override;

  Result<std::unique_ptr<StorageFile>> open(const std::string& path, OpenMode mode) override;
  Result<FileStat> stat(const std::string& path) const override { return real_.stat(path); }
  Result<uint64_t> held_bytes(const std::string& path) const override {
    return penstock::held_bytes(real_, path);
  }
  Result<bool> is_directory(const std::string& path) const override {
    return real_.is_directory(path);
  }
  Result<std::vector<std::string>> list(const std::string& directory) const override {
    return real_.list(directory);
  }
  Result<void> make_directory(const std::string& path) override {
    count_change();
    return real_.make_directory(path);
  }
  Result<void> rename(const std::string& from, const std::string& to) override {
    count_change();
    return real_.rename(from, to);
  }
  Result<void> remove(const std::string& path) override {
    count_change();
    return real_.remove(path);
  }
  Result<void> remove_tree(const std::string& path) override {
    count_change();
    return real_.remove_tree(path);
  }
  Result<void> sync_directory(const std::string& path) override {
    count_change();
    return real_.sync_directory(path);
  }
  Result<uint64_t> free_bytes(const std::string& path) const override {
    if (rates_.free_bytes > 0) return rates_.free_bytes;
    return real_.free_bytes(path);
  }
  Result<std::unique_ptr<Lock>> lock(const std::string& path) override { return real_.lock(path); }

  // What a read meets now.
  enum class Fate : uint8_t { kGood, kError, kFlip };
  Fate draw(uint64_t& place) const;
  void count_change();

 private:
  Storage& real_;
  const FaultRates rates_;
  mutable std::mutex mutex_;
  mutable std::mt19937_64 dice_;  // guarded by mutex_
  std::atomic<uint64_t> changes_ = 0;
};

}  // namespace penstock
