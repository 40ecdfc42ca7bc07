// The one door to the disk: files by path, with every call able to fail.
//
// Packing and loading go through this interface so that tests can put a simulated disk behind it
// (tests/support/sim_storage.h) that fails the n-th call, tears writes, fills up or loses power.
// There is no memory mapping: a truncated or failing file must be an Error, not a signal.
//
// Threads  A StorageFile may be read from several threads at once; everything else from one.
// Errors   kNotFound (no such file), kIo (the system's reason), kOutOfMemory (disk full). Every
//          message names the path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace penstock {

struct FileStat {
  uint64_t bytes = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t modified_ns = 0;

  bool operator==(const FileStat&) const = default;
};

class StorageFile {
 public:
  virtual ~StorageFile() = default;

  virtual const std::string& path() const = 0;

  // One system call, for readers: bytes read (fewer than asked is normal, 0 is the end of the file)
  // or minus errno, EINTR and EAGAIN included. With a direct file, offset, address and size must be
  // multiples of alignment().
  virtual int64_t try_read(uint64_t offset, std::span<std::byte> target) const = 0;

  // The same for everyone else: repeats what was interrupted, names the path when it failed.
  Result<uint64_t> read_some(uint64_t offset, std::span<std::byte> target) const;

  // Writes all of it or fails.
  virtual Result<void> write(uint64_t offset, std::span<const std::byte> source) = 0;

  // Makes room for `bytes` in all, so that later writes cannot run out of disk; the file's length
  // does not change. kOutOfMemory with the numbers when there is none.
  virtual Result<void> reserve(uint64_t bytes) = 0;

  virtual Result<void> sync() = 0;
  virtual Result<FileStat> stat() const = 0;

  // Asks the system not to keep these bytes in its page cache (buffered files; advisory).
  virtual void drop_cached(uint64_t offset, uint64_t bytes) const = 0;

  // Granularity of direct reads in bytes, at most kDirectAlignmentMax; 1 for a buffered file.
  virtual uint64_t alignment() const = 0;

  // For io_uring; -1 when there is none (a simulated file).
  virtual int descriptor() const = 0;
};

// Records of our own files are laid out in multiples of this; a device that wants more is read
// through the page cache.
inline constexpr uint64_t kDirectAlignmentMax = 4096;

enum class OpenMode {
  kRead,        // buffered
  kReadDirect,  // past the page cache; falls back to buffered (alignment() == 1) where refused
  kWrite,       // existing file, read and write
  kCreate,      // new or truncated, read and write
};

class Storage {
 public:
  virtual ~Storage() = default;

  virtual Result<std::unique_ptr<StorageFile>> open(const std::string& path, OpenMode mode) = 0;
  virtual Result<FileStat> stat(const std::string& path) const = 0;
  virtual Result<bool> is_directory(const std::string& path) const = 0;
  virtual Result<std::vector<std::string>> list(const std::string& directory) const = 0;  // sorted
  virtual Result<void> make_directory(const std::string& path) = 0;  // with parents; may exist
  virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
  virtual Result<void> remove(const std::string& path) = 0;
  virtual Result<void> remove_tree(const std::string& path) = 0;
  virtual Result<void> sync_directory(const std::string& path) = 0;
  virtual Result<uint64_t> free_bytes(const std::string& path) const = 0;

  // An advisory lock against a second writer, held while the object lives. kIo when taken.
  class Lock {
   public:
    virtual ~Lock() = default;
  };
  virtual Result<std::unique_ptr<Lock>> lock(const std::string& path) = 0;
};

// The real one.
Storage& posix_storage();

// read_some until full. A file that ends early is kCorrupt, naming path and offset.
Result<void> read_exactly(const StorageFile& file, uint64_t offset, std::span<std::byte> target);

// A whole small file. Larger than bytes_max is kCorrupt.
Result<std::string> read_text(Storage& storage, const std::string& path, uint64_t bytes_max);

}  // namespace penstock
